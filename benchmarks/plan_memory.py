"""What `sdjob plan` says of a device's memory, against the truth, as Markdown tables.

    python benchmarks/plan_memory.py [traced] [resident] [tpu] [--keep FOLDER]

traced    Stable Diffusion at full size: the trainer's own step on tensors without numbers, as on an NVIDIA GPU in bf16; about 20
          CPU seconds a row. The plan's workspace is CUDA's own, and is left out.
resident  small and medium models on this machine's CPU in float32: real steps in a process of their own, and how much its
          resident memory grew at most, once the libraries have warmed up.
tpu       what libtpu's compiler needs for a chip of v5e, by benchmarks/tpu_compile.py: about 100 CPU seconds a row.

--keep: answers of traced and tpu lie there, and are not asked for again.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sdjob.job.ahead.program import program_ahead
from sdjob.job.ahead.task import SCHEDULER, SCHEDULER_FILE, ahead_task
from sdjob.plan.families import SD1
from sdjob.plan.memory import memory_of
from sdjob.plan.models import known_model
from sdjob.spec.job import JobSpec
from sdjob.spec.load import parse_job
from sdjob.spec.task import TrainTask, read_task, write_task
from tpu_compile import ACCELERATOR, PROGRAMS, cached_forecast

GIB, MIB = 2**30, 2**20
SD15, SD21, XL = (
    f"hf://{name}"
    for name in (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-xl-base-1.0",
    )
)
# glibc gives blocks from this size on back when they are freed: https://man7.org/linux/man-pages/man3/mallopt.3.html
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
QUICKSTART = str(Path(__file__).parents[1] / "jobspecs/quickstart/base")
TPU_ROWS = ("fsdp-remat", "fsdp-remat-8", "fsdp-remat-16", "lora-8", "lora-remat-32")


@dataclass(frozen=True)
class Case:
    title: str
    method: str = "lora"
    source: str = SD15
    px: int = 512
    batch: int = 1
    train: dict[str, Any] = field(default_factory=dict[str, Any])

    def job(self, *, accelerator: str) -> JobSpec:
        train = {"method": self.method, "steps": 1, "device_batch": self.batch, **self.train}
        return parse_job(
            {
                "apiVersion": "sdjob/v1",
                "name": "x",
                "model": {"source": self.source},
                "data": {"source": "/nowhere", "resolution": self.px},
                "train": train,
                "run": {"accelerator": accelerator},
            }
        )


AGAIN, LOOPED = {"gradient_checkpointing": True}, {"cache": "never"}
TRACED = (
    Case("SD 1.5, LoRA"),
    Case("SD 1.5, LoRA", batch=4),
    Case("SD 1.5, LoRA, encoders in the loop", train=LOOPED),
    Case("SD 1.5, LoRA, checkpointing", batch=4, train=AGAIN),
    Case("SD 1.5, full", "full"),
    Case("SD 1.5, full", "full", batch=4),
    Case("SD 1.5, full, checkpointing", "full", train=AGAIN),
    Case("SD 1.5, full, checkpointing, EMA, accumulated", "full", batch=4, train={**AGAIN, "ema": {}, "global_batch": 8}),
    Case("SD 1.5, full, float32", "full", train={"precision": "fp32"}),
    Case("SD 2.1 at 768, LoRA", source=SD21, px=768),
    Case("SD 2.1 at 768, full, checkpointing", "full", source=SD21, px=768, batch=2, train=AGAIN),
    Case("SDXL at 1024, LoRA, checkpointing", source=XL, px=1024, train=AGAIN),
)


def resident_cases(folder: Path) -> Iterator[Case]:
    """The quickstart's model, and a quarter of SD 1.5's widths."""
    for method in ("lora", "full"):
        yield Case(f"the quickstart's, {method}", method, QUICKSTART, px=128, batch=16)
        yield Case(f"a quarter as wide as SD 1.5, {method}", method, str(narrow(folder)), px=256, batch=4)
    yield Case("a quarter as wide as SD 1.5, full, checkpointing", "full", str(narrow(folder)), px=256, batch=8, train=AGAIN)


def narrow(folder: Path) -> Path:
    """Its text encoder is small: what is made and dropped before the first step must not be the peak."""
    unet = {"block_out_channels": a_quarter(SD1.unet), "cross_attention_dim": 192, "attention_head_dim": 2}
    text = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 3}
    text |= {"vocab_size": 1000, "bos_token_id": 998, "eos_token_id": 999}
    configurations = {
        "unet": {**SD1.unet, **unet},
        "vae": {**SD1.vae, "block_out_channels": a_quarter(SD1.vae)},
        "text_encoder": {**SD1.text_encoders[0], **text},
    }
    for part, config in configurations.items():
        groups = {} if part == "text_encoder" else {"norm_num_groups": 8}
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps({**config, **groups}), encoding="utf-8")
    (folder / SCHEDULER_FILE).parent.mkdir(exist_ok=True)
    (folder / SCHEDULER_FILE).write_text(json.dumps(SCHEDULER), encoding="utf-8")
    return folder


def a_quarter(config: dict[str, Any]) -> list[int]:
    return [width // 4 for width in config["block_out_channels"]]


# ---- the tables ------------------------------------------------------------------------------------------------------------


def traced(keep: Path) -> Iterator[str]:
    yield table("traced by torch, GiB", ("model and method", "images", "plan", "traced", "plan / traced"))
    for case in TRACED:
        job = case.job(accelerator="nvidia-a100-80gb")
        model = known_model(job.model, base=Path("/"))
        memory = memory_of(job, model=model)
        told = memory.needed - memory.parts["workspace"]
        truth = program_ahead(job, model=model, keep=keep, memory_alone=True).needed_bytes
        yield row(case.title, case.batch, told, truth, unit=GIB)


def resident(_: Path) -> Iterator[str]:
    yield table("resident on a CPU, MiB", ("model and method", "images", "plan", "traced", "resident", "plan / resident"))
    with TemporaryDirectory() as folder:
        for case in resident_cases(Path(folder)):
            job = case.job(accelerator="cpu")
            model = known_model(job.model, base=Path("/"))
            with TemporaryDirectory() as task_folder:
                write_task(ahead_task(job, model=model, folder=Path(task_folder)), Path(task_folder) / "task.json")
                argv = [sys.executable, __file__, "--child", str(Path(task_folder) / "task.json")]
                done = subprocess.run(argv, env={**os.environ, **GIVEN_BACK}, stdout=subprocess.PIPE, text=True, check=True)
                told = json.loads(done.stdout)
            planned = memory_of(job, model=model).needed
            sizes = " | ".join(f"{size / MIB:.0f}" for size in (planned, told["traced"], told["resident"]))
            yield f"| {case.title} | {case.batch} | {sizes} | {planned / told['resident']:.2f} |"


def tpu(keep: Path) -> Iterator[str]:
    yield table("a chip of TPU v5e, GiB", ("program", "images a chip", "plan", "libtpu", "plan / libtpu"))
    for name in TPU_ROWS:
        variant = PROGRAMS[name]
        train = {"backend": "flax", "gradient_checkpointing": variant.checkpointing}
        case = Case(f"SD 1.5, {variant.title}", variant.method, batch=variant.batch, train=train)
        job = case.job(accelerator=ACCELERATOR)
        truth = cached_forecast(name, width=1, finish=False, out=keep).needed_bytes
        yield row(case.title, variant.batch, memory_of(job, model=known_model(job.model, base=Path("/"))).needed, truth, unit=GIB)


def table(title: str, columns: tuple[str, ...]) -> str:
    return "\n".join(["", f"{title}:", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"])


def row(title: str, batch: int, told: float, truth: float, *, unit: int) -> str:
    return f"| {title} | {batch} | {told / unit:.2f} | {truth / unit:.2f} | {told / truth:.2f} |"


# ---- a process whose memory is looked at -----------------------------------------------------------------------------------


def be_child(task: Path) -> None:
    import torch  # noqa: PLC0415 (torch is for the child alone)

    from sdjob.train_torch.forecast import forecast  # noqa: PLC0415

    torch.set_num_threads(1)
    read = read_task(task)
    assert isinstance(read, TrainTask)
    traced = forecast(read).peak_bytes
    forecast(read, numbers=True)  # the libraries' code, and what they keep for themselves, is not the step's
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes("VmRSS")
    # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html: 5 sets the peak back to what is resident now
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    forecast(read, numbers=True)
    print(json.dumps({"traced": traced, "resident": resident_bytes("VmHWM") - before}))


def resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


PARTS = {"traced": traced, "resident": resident, "tpu": tpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them, where none is named")
    parser.add_argument("--keep", type=Path, default=Path("plan-memory"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        be_child(asked.child)
        return
    for part in asked.parts or PARTS:
        for line in PARTS[part](asked.keep):
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""What one lever does to the torch trainer's step on a CPU: the trainer as it is and one without the lever, step by step in turn.

    python benchmarks/step_levers.py --method lora [--lever lora-as-one] [--rounds 12] [--threads 1] [--batch 1]
        [--resolution 256]

Both trainers live in this process, built as the trainer's main builds them, so that what else the machine does slows both alike.
The encoders have run before. Medians of the process's own CPU seconds a step; the ratio is of the medians, below one where the
lever pays.
"""

import argparse
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sdjob.core.cpu import widest_isa
from sdjob.job.launch import ARITHMETIC, QUIET

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--method", choices=["lora", "full"], default="lora")
parser.add_argument("--lever", action="append", help="by default all of the method's")
for name, default in {"rounds": 12, "threads": 1, "batch": 1, "resolution": 256}.items():
    parser.add_argument(f"--{name}", type=int, default=default)
ARGS = parser.parse_args()

# Read when the libraries are imported: threads and instructions, as `sdjob run` sets them.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-ARGS.threads :])
os.environ |= {name: str(ARGS.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
os.environ |= QUIET | ARITHMETIC[widest_isa()]

import torch  # noqa: E402
from peft.tuners.lora.layer import Linear  # noqa: E402

from sdjob.core.streams import stream  # noqa: E402
from sdjob.diffusion.draws import DrawPlan, draw  # noqa: E402
from sdjob.diffusion.schedule import read_schedule  # noqa: E402
from sdjob.spec.load import parse_job  # noqa: E402
from sdjob.spec.task import TrainTask  # noqa: E402
from sdjob.train_torch import compiled, setup  # noqa: E402
from sdjob.train_torch.lora_layer import AdaptedLinear  # noqa: E402
from sdjob.train_torch.step import MicroBatch, StepRunner  # noqa: E402
from throughput import make  # noqa: E402

WARM_UP, TOKENS = 2, 77
FOLDERS: list[Path] = []  # this process's, while it measures
Switch = Callable[[bool], None]
# https://man7.org/linux/man-pages/man3/mallopt.3.html
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


# ---- the levers: what makes a trainer one without -------------------------------------------------------------------------


def pefts_layers(runner: StepRunner) -> None:
    for module in runner.models.unet.modules():
        if type(module) is AdaptedLinear:
            module.__class__ = Linear  # pyright: ignore[reportAttributeAccessIssue]


def torchs_layout(runner: StepRunner) -> None:
    runner.models.unet.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def channels_last(runner: StepRunner) -> None:
    """The trainer lays it out so for one picture at a time alone."""
    setup.lay_out(runner.models.unet)


def unfused(runner: StepRunner) -> None:
    for group in runner.state.optimizer.param_groups:
        group["fused"] = False


def always_clipped(runner: StepRunner) -> None:
    limit = float("inf") if runner.max_grad_norm is None else runner.max_grad_norm
    runner._clip = lambda: torch.nn.utils.clip_grad_norm_(runner.state.parameters.values(), limit)


def compiled_blocks(runner: StepRunner) -> None:
    """The first warm-up step compiles, for minutes, in a folder of this process's own."""
    compiled.settle(Path(tempfile.mkdtemp(dir=FOLDERS[0])), deterministic=True, isa=widest_isa())
    compiled.compile_blocks(runner.models.unet)


def keep_memory(keep: bool) -> None:
    """Of the whole process, so before each step. Otherwise as malloc sets itself where the largest tensors have some 10 MiB."""
    libc = ctypes.CDLL("libc.so.6")
    for option, kept, usual in ((TRIM_THRESHOLD, 2**31 - 1, 22 * 2**20), (MMAP_THRESHOLD, 2**30, 11 * 2**20)):
        assert libc.mallopt(option, kept if keep else usual), "mallopt refused"


@dataclass(frozen=True)
class Lever:
    undo: Callable[[StepRunner], None] = lambda _: None
    pull: Callable[[StepRunner], None] = lambda _: None
    switch: Switch = lambda _: None


LEVERS = {
    "lora": {
        "lora-as-one": Lever(pefts_layers), "channels-last": Lever(torchs_layout, channels_last),
        "kept-memory": Lever(switch=keep_memory), "compile": Lever(pull=compiled_blocks),
    },
    "full": {
        "fused-adamw": Lever(unfused), "clip-where-needed": Lever(always_clipped), "kept-memory": Lever(switch=keep_memory),
        "compile": Lever(pull=compiled_blocks),
    },
}  # fmt: skip


# ---- trainers and batches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded(TrainTask):
    """Its encoders have run before."""

    @property
    def needs_vae(self) -> bool:
        return False

    @property
    def needs_text_encoder(self) -> bool:
        return False


def task_of(folder: Path) -> TrainTask:
    job: dict[str, Any] = {
        "apiVersion": "sdjob/v1", "name": "levers", "model": {"source": str(folder / "model")}, "data": {"source": str(folder)},
        "train": {
            "method": ARGS.method, "steps": 1000, "global_batch": ARGS.batch, "device_batch": ARGS.batch, "precision": "fp32",
            "deterministic": True, "optimizer": {"learning_rate": 1e-4}, "loss": {"prediction": "epsilon"},
        },
        "run": {"accelerator": "cpu:1"},
    }  # fmt: skip
    return Encoded(
        job=parse_job(job), model=folder / "model", pictures=folder, index=folder, scratch=folder, total_steps=1000, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=ARGS.threads,
    )  # fmt: skip


def runner_of(task: TrainTask) -> StepRunner:
    accelerator = setup.build_accelerator(task)
    return setup.build_runner(task, accelerator=accelerator, models=setup.build_models(task, accelerator=accelerator))


def batch_of(task: TrainTask, *, features: int) -> MicroBatch:
    side = ARGS.resolution // 8
    shape = (4, side, side)
    plan = DrawPlan(
        seed=0, schedule=read_schedule(task.model), latent_shape=shape, snr_gamma=None, noise_offset=0.0, input_perturbation=0.0
    )
    drawn = {name: torch.from_numpy(values) for name, values in vars(draw(plan, step=0, indices=list(range(ARGS.batch)))).items()}
    normal = stream(0, "levers")

    def made(*sizes: int) -> torch.Tensor:
        return torch.from_numpy(normal.standard_normal((ARGS.batch, *sizes), dtype="float32"))

    pictures = {"mean_BCHW": made(*shape), "log_variance_BCHW": made(*shape)}
    return MicroBatch(pictures, {"states_BTD": made(TOKENS, features)}, torch.zeros(ARGS.batch, 6), **drawn)


def compare(task: TrainTask, lever: Lever) -> tuple[float, float]:
    """CPU seconds a step without the lever, and with it."""
    torch.set_num_threads(ARGS.threads)
    runners = {False: runner_of(task), True: runner_of(task)}
    lever.undo(runners[False])
    lever.pull(runners[True])
    batch = batch_of(task, features=runners[True].models.unet.config["cross_attention_dim"])
    spent: dict[bool, list[float]] = {False: [], True: []}
    for step in range(WARM_UP + ARGS.rounds):
        for pulled, runner in runners.items():
            lever.switch(pulled)
            before_s = time.process_time()
            runner.run([batch], step=step, stop_wanted=False).read()
            spent[pulled].append(time.process_time() - before_s)
    return median(spent[False][WARM_UP:]), median(spent[True][WARM_UP:])


def main() -> None:
    levers = LEVERS[ARGS.method]
    with tempfile.TemporaryDirectory() as name:
        FOLDERS.append(Path(name))
        make(Path(name), size="narrow", pictures=1, side_px=64)
        task = task_of(Path(name))
        print(f"{ARGS.method}, batch {ARGS.batch}, {ARGS.resolution} px, {ARGS.threads} thread(s), {ARGS.rounds} rounds")
        print("| lever | without, CPU s a step | with | ratio |\n|---|---|---|---|", flush=True)
        for lever in ARGS.lever or levers:
            without, with_ = compare(task, levers[lever])
            print(f"| {lever} | {without:.3f} | {with_:.3f} | {with_ / without:.3f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""CPU throughput of the flax step beside torch's: the same job, the same batch, steps in turn, the ratio of the medians.

    python benchmarks/flax_throughput.py [--rounds 15] [--threads 1] [--only base-lora]

Both trainers live in this process, built as their own mains build them, and take turns step by step: what else the machine
does then slows both alike. A step, encoders included, is timed by the wall and by the process's own CPU seconds. What a first
start does before its first step (tracing and compiling) is timed apart, and once more with what that left in jax's cache.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sdjob.job.launch import ARITHMETIC, PORTABLE_XLA, QUIET

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--only", action="append", help="a case by its name; may be given several times")
ARGS = parser.parse_args()

# Read when the libraries are imported: threads and instructions, as `sdjob run` sets them.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGS.threads])
os.environ |= {name: str(ARGS.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")}
os.environ |= QUIET | ARITHMETIC["avx2"] | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": PORTABLE_XLA}

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: E402

from sdjob.core.streams import stream  # noqa: E402
from sdjob.diffusion.draws import DrawPlan, draw  # noqa: E402
from sdjob.diffusion.schedule import read_schedule  # noqa: E402
from sdjob.spec.load import parse_job  # noqa: E402
from sdjob.spec.task import TrainTask  # noqa: E402
from sdjob.train_flax import setup as flax_setup  # noqa: E402
from sdjob.train_flax.step import StepBatch, advance  # noqa: E402
from sdjob.train_torch import setup as torch_setup  # noqa: E402
from sdjob.train_torch.step import MicroBatch  # noqa: E402

BASE = Path(__file__).resolve().parents[1] / "jobspecs" / "quickstart" / "base"
SIDE_PX, LATENT_SHAPE = 64, (4, 8, 8)
WARM_UP = 2
HEAD = """\
| case | batch | torch, ms a step (CPU) | flax, ms a step (CPU) | steps a second, flax / torch (CPU) | first start, CPU s | next |
|---|---|---|---|---|---|---|"""
IMAGES = ("pixels", "noise", "input_noise", "posterior")


@dataclass(frozen=True)
class Case:
    name: str
    method: str
    batch: int
    widths: tuple[int, int] | None = None
    """Of a UNet of random weights; None: the quickstart's own, 64 and 128."""


CASES = (
    Case("base-lora", "lora", batch=4),
    Case("base-full", "full", batch=4),
    Case("wide-lora", "lora", batch=2, widths=(320, 640)),
    Case("wide-full", "full", batch=2, widths=(320, 640)),
)


# ---- one job for both ------------------------------------------------------------------------------------------------------


def write_model(folder: Path, *, widths: tuple[int, int]) -> None:
    """The quickstart's model with a wider UNet: SD 1.5's first two levels have these widths."""
    shutil.copytree(BASE, folder, ignore=shutil.ignore_patterns("unet"))
    torch.manual_seed(0)
    config = json.loads((BASE / "unet" / "config.json").read_text(encoding="utf-8"))
    unet: Any = UNet2DConditionModel.from_config(config | {"block_out_channels": widths})
    unet.save_pretrained(folder / "unet")


def make_task(case: Case, *, model: Path, scratch: Path) -> TrainTask:
    job = parse_job({
        "apiVersion": "sdjob/v1", "name": case.name, "model": {"source": str(model)},
        "data": {"source": str(scratch), "resolution": SIDE_PX},
        "train": {
            "method": case.method, "steps": 1000, "global_batch": case.batch, "device_batch": case.batch, "precision": "fp32",
            "deterministic": True,
        },
        "run": {"accelerator": "cpu:1"},
    })  # fmt: skip
    return TrainTask(
        job=job, model=model, pictures=scratch, index=scratch / "index.jsonl", scratch=scratch, total_steps=1000, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=ARGS.threads,
    )  # fmt: skip


def make_arrays(task: TrainTask) -> dict[str, Any]:
    rows = range(task.job.train.global_batch)
    drawn = draw(DrawPlan(seed=0, schedule=read_schedule(task.model), latent_shape=LATENT_SHAPE), step=0, indices=rows)
    pixels = [stream(1, "pixels", row).uniform(-1, 1, (3, SIDE_PX, SIDE_PX)).astype(np.float32) for row in rows]
    ids = [stream(1, "ids", row).integers(0, 200, (1, 16)) for row in rows]
    told = {"told_B": np.ones(len(rows), np.float32), "time_ids_B6": np.zeros((len(rows), 6), np.float32)}
    return {**vars(drawn), **told, "pixels_BCHW": np.stack(pixels), "ids_BET": np.stack(ids)}


def torch_step(task: TrainTask, arrays: dict[str, Any]) -> Callable[[int], float]:
    """Runs a step, and returns its loss."""
    torch.set_num_threads(ARGS.threads)
    accelerator = torch_setup.build_accelerator(task)
    models = torch_setup.build_models(task, accelerator=accelerator)
    runner = torch_setup.build_runner(task, accelerator=accelerator, models=models)
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    pictures, captions = ({name: tensors.pop(name) for name in of} for of in (("pixels_BCHW",), ("ids_BET", "told_B")))
    micro = MicroBatch(pictures, captions, **tensors)
    return lambda step: runner.run([micro], step=step, stop_wanted=False).read().loss


def in_flax(arrays: dict[str, Any]) -> StepBatch:
    images = {f"{name}_MBHWC": arrays[f"{name}_BCHW"].transpose(0, 2, 3, 1)[None] for name in IMAGES}
    pictures, captions = (
        {"pixels_MBHWC": images.pop("pixels_MBHWC")},
        {name: arrays[name.replace("_MB", "_B")][None] for name in ("ids_MBET", "told_MB")},
    )
    others = {f"{name}_MB": arrays[f"{name}_B"][None] for name in ("timesteps", "signal", "sigma", "loss_weight")}
    return StepBatch(pictures, captions, arrays["time_ids_B6"][None], **images, **others)


# ---- timing ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def seconds_of(action: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def seconds_of_start(runner: Any, batch: StepBatch) -> Seconds:
    """Of tracing and compiling a step, or of reading it from jax's cache where that has it."""
    jax.clear_caches()
    knobs = runner.knobs(1e-4, step=0, num_micro=1)
    given = (runner.state, runner.frozen, runner.put(batch), knobs)
    return seconds_of(lambda: advance.lower(*given, plan=runner.plan).compile())


def measure(case: Case, *, folder: Path) -> None:
    model = folder / case.name if case.widths else BASE
    if case.widths:
        write_model(model, widths=case.widths)
    task = make_task(case, model=model, scratch=folder)
    arrays = make_arrays(task)
    runner, batch = flax_setup.build_trainer(task).runner, in_flax(arrays)
    runner.count = 1  # of no update at all Adam's corrections are zero
    starts = [seconds_of_start(runner, batch) for _ in range(2)]
    runner.count = 0
    steps = {"torch": torch_step(task, arrays), "flax": lambda step: runner.run(batch, step=step, stop_wanted=False).read().loss}
    report(case, take_turns(steps), first=starts[0], second=starts[1])


def take_turns(steps: dict[str, Callable[[int], float]]) -> dict[str, list[Seconds]]:
    seen: dict[str, list[Seconds]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(WARM_UP + ARGS.rounds):
        for name, step in steps.items():
            seen[name].append(seconds_of(lambda name=name, step=step, round_=round_: losses[name].append(step(round_))))
    np.testing.assert_allclose(losses["torch"], losses["flax"], rtol=2e-3)  # else two different things are compared
    return {name: of_one[WARM_UP:] for name, of_one in seen.items()}


def report(case: Case, seen: dict[str, list[Seconds]], *, first: Seconds, second: Seconds) -> None:
    wall, cpu = ({name: median(getattr(s, of) for s in of_one) for name, of_one in seen.items()} for of in ("wall", "cpu"))
    milliseconds = " | ".join(f"{1000 * wall[name]:.0f} ({1000 * cpu[name]:.0f})" for name in ("torch", "flax"))
    ratio = f"{wall['torch'] / wall['flax']:.2f} ({cpu['torch'] / cpu['flax']:.2f})"
    print(f"| {case.name} | {case.batch} | {milliseconds} | {ratio} | {first.cpu:.1f} | {second.cpu:.1f} |", flush=True)


def main() -> None:
    names = {case.name for case in CASES}
    if unknown := set(ARGS.only or ()) - names:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/compiled")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        print(HEAD)
        for case in CASES:
            if not ARGS.only or case.name in ARGS.only:
                measure(case, folder=Path(folder))


if __name__ == "__main__":
    main()

"""Flax trainers of the tiny model, and the torch trainers' own micro-batches in flax's layout."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fakes.flax_parity import channels_last
from fakes.torch_runs import make_micro
from sdjob.spec.task import TrainTask
from sdjob.train_flax.setup import FlaxTrainer, build_trainer
from sdjob.train_flax.step import StepBatch, stacked
from sdjob.train_torch.step import MicroBatch

IMAGES = ("noise", "input_noise", "posterior")


def make_flax_trainer(task: TrainTask, *, checkpoint: Path | None = None, init_from: Path | None = None) -> FlaxTrainer:
    return build_trainer(replace(task, restore_from=checkpoint, init_from=init_from))


def in_flax(micro: MicroBatch) -> StepBatch:
    """One micro-step's tensors, not stacked yet."""
    images = {f"{name}_MBHWC": channels_last(getattr(micro, f"{name}_BCHW")) for name in IMAGES}
    others = {f"{name}_MB": getattr(micro, f"{name}_B").numpy() for name in ("timesteps", "signal", "sigma", "loss_weight")}
    return StepBatch(
        pictures={name.replace("_BCHW", "_MBHWC"): channels_last(values) for name, values in micro.pictures.items()},
        captions={name.replace("_B", "_MB"): values.numpy() for name, values in micro.captions.items()},
        time_ids_MB6=micro.time_ids_B6.numpy(),
        **images,
        **others,
    )


def make_flax_batch(task: TrainTask, *, step: int, micros: Iterable[Iterable[int]]) -> StepBatch:
    return stacked([in_flax(make_micro(task, step=step, rows=rows)) for rows in micros])

"""A trainer's double on its side of the channel: the real loop and the real save thread around a state of 48 KiB and steps of
some milliseconds, so that hundreds of runs can be killed in minutes. python -m fakes.small_trainer, as `sdjob.train_torch`.

A step's change depends on the seed, the step and the whole state before it: what a restore gets wrong shows in the last digest.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from sdjob.core.channel import inherited_channel
from sdjob.core.clock import SystemClock, process_age_s
from sdjob.core.streams import stream
from sdjob.link import Link, awaited_task
from sdjob.loop import Loop, LoopPlan, StepMetrics
from sdjob.spec.task import TrainTask, read_task

STEP_S = 0.008
SHAPE = (64, 64)
FILES = {"weights": "unet.w", "optimizer": "optimizer.m.unet.w", "ema": "ema.unet.w"}
State = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Copied:
    state: Mapping[str, NDArray[np.float32]]
    step: int

    def write_into(self, folder: Path) -> None:
        for name, tensor in FILES.items():
            save_file({tensor: self.state[name]}, folder / f"{name}.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": self.step}))


@dataclass(frozen=True)
class Known:
    metrics: StepMetrics
    is_here = False

    def read(self) -> StepMetrics:
        return self.metrics


class SmallTrainer:
    def __init__(self, task: TrainTask) -> None:
        self.seed = task.job.train.seed
        self.state: State = {name: np.zeros(SHAPE, np.float32) for name in FILES}
        if task.restore_from is not None:
            self._restore(task.restore_from, step=task.start_step)

    def _restore(self, folder: Path, *, step: int) -> None:
        assert json.loads((folder / "state.json").read_text()) == {"step": step}
        self.state = {name: load_file(folder / f"{name}.safetensors")[tensor] for name, tensor in FILES.items()}

    def step(self, batch: int, *, step: int, stop_wanted: bool) -> Known:
        assert batch == step
        time.sleep(STEP_S)
        gradient = stream(self.seed, "gradient", step).standard_normal(SHAPE, dtype=np.float32)
        self.state["optimizer"] = np.float32(0.9) * self.state["optimizer"] + gradient
        self.state["weights"] = np.sin(self.state["weights"] + self.state["optimizer"])
        self.state["ema"] = np.float32(0.5) * (self.state["ema"] + self.state["weights"])
        loss = float(np.abs(self.state["weights"]).mean())
        return Known(StepMetrics(loss=loss, grad_norm=1.0, learning_rate=1.0, stop=stop_wanted))

    def expect_saves(self) -> None:
        """Its copies are small."""

    def snapshot(self, *, step: int, metrics: StepMetrics) -> Copied:
        return Copied({name: values.copy() for name, values in self.state.items()}, step)

    def validate(self, folder: Path) -> None:
        raise AssertionError("its jobs ask for no pictures")


def main() -> None:
    channel = inherited_channel()
    assert channel is not None
    channel.send({"event": "imported", "seconds": process_age_s()})
    task_file = awaited_task(channel)
    if task_file is None:
        sys.exit(70)
    task = read_task(task_file)
    assert isinstance(task, TrainTask)
    link = Link(channel, on_parent_gone=lambda: os._exit(70))
    link.start()
    trainer = SmallTrainer(task)
    plan = LoopPlan(
        start_step=task.start_step,
        total_steps=task.total_steps,
        global_batch=task.job.train.global_batch,
        save_every_steps=task.job.checkpoint.every_steps,
        save_every_seconds=None,
        validate_every_steps=None,
        scratch=task.scratch,
        num_ranks=1,
        is_main=True,
    )
    link.send("ready", step=task.start_step, fingerprint={"threads": task.threads, "versions": {}})
    link.send(Loop(trainer, plan, link, SystemClock()).run(range(task.start_step, task.total_steps)))


if __name__ == "__main__":
    main()

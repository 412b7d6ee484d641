"""The flax trainer's table of contents: read the task, build, restore, loop, say how it ended."""

import os
import traceback
from pathlib import Path

import jax

from sdjob.core.channel import Channel, inherited_channel
from sdjob.core.clock import SystemClock
from sdjob.core.errors import SdjobError, UsageError
from sdjob.loop import Link, Loop
from sdjob.spec.task import SampleTask, TrainTask, read_task
from sdjob.train_flax import setup
from sdjob.train_flax.batches import build_batches
from sdjob.train_flax.fingerprint import fingerprint
from sdjob.train_flax.sample import run_sample_task

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # https://github.com/openxla/xla names the status; jax has no class of its own for it


def main(task_file: str) -> int:
    """Exit code 0: the task ended as its last message says; else the error's own."""
    channel = inherited_channel()
    if channel is None:
        raise UsageError("sdjob.train_flax is started by `sdjob run`, not by hand")
    try:
        task = read_task(Path(task_file))
        if task.device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        if isinstance(task, SampleTask):
            run_sample_task(task, channel=channel)
        else:
            train(task, channel=channel)
    except SdjobError as error:
        channel.send({"event": "failed", "exit_code": error.exit_code, "what": str(error)})
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        full = isinstance(error, jax.errors.JaxRuntimeError) and OUT_OF_MEMORY in str(error)
        code, what = (69, f"the device is out of memory: {error}") if full else (70, f"{type(error).__name__}: {error}")
        channel.send({"event": "failed", "exit_code": code, "what": what})
        return code
    return 0


def train(task: TrainTask, *, channel: Channel) -> None:
    link = Link(channel, on_parent_gone=lambda: os._exit(70))
    link.start()
    trainer = setup.build_trainer(task)
    link.send("ready", step=task.start_step, fingerprint=fingerprint(task))
    with build_batches(task, trainer=trainer) as batches:
        ending = Loop(trainer, setup.loop_plan(task), link, SystemClock()).run(batches)
    link.send(ending)

"""The flax trainer's table of contents: read the task, build, restore, loop, say how it ended."""

import os
import traceback

import jax

from sdjob.core.channel import Channel, inherited_channel
from sdjob.core.clock import SystemClock, process_age_s
from sdjob.core.errors import PeerLostError, SdjobError, UnavailableError, UsageError
from sdjob.link import Link, awaited_task
from sdjob.loop import Loop
from sdjob.spec.task import SampleTask, TrainTask, read_task
from sdjob.train_flax import hosts, setup
from sdjob.train_flax.batches import build_batches
from sdjob.train_flax.compiled import Compilation
from sdjob.train_flax.fingerprint import fingerprint
from sdjob.train_flax.held_out import measure_of
from sdjob.train_flax.once import encodings_of
from sdjob.train_flax.sample import run_sample_task

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # https://github.com/openxla/xla names the status; jax has no class of its own for it


def main() -> int:
    """Exit code 0: the task ended as its last message says; else the error's own."""
    channel = inherited_channel()
    if channel is None:
        raise UsageError("sdjob.train_flax is started by `sdjob run`, not by hand")
    channel.send({"event": "imported", "seconds": round(process_age_s(), 3)})
    task_file = awaited_task(channel)
    if task_file is None:
        return SdjobError.exit_code  # nobody is left to hear why
    try:
        task = read_task(task_file)
        if task.device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        if isinstance(task, SampleTask):
            run_sample_task(task, channel=channel)
        else:
            hosts.join(task.device)
            train(task, channel=channel)
            hosts.leave()
    except Exception as error:
        code, what = failure_of(error)
        channel.send({"event": "failed", "exit_code": code, "what": what})
        return hosts.leave_at_once(code)
    return 0


def failure_of(error: Exception) -> tuple[int, str]:
    """(exit code, words)"""
    if isinstance(error, SdjobError):
        return error.exit_code, str(error)
    traceback.print_exc()
    if hosts.is_gone(error):
        return PeerLostError.exit_code, f"another host is gone: {error}"
    if isinstance(error, jax.errors.JaxRuntimeError) and OUT_OF_MEMORY in str(error):
        return UnavailableError.exit_code, f"the device is out of memory: {error}"
    return SdjobError.exit_code, f"{type(error).__name__}: {error}"


def train(task: TrainTask, *, channel: Channel) -> None:
    link = Link(channel, on_parent_gone=lambda: os._exit(70))
    link.start()
    compilation = Compilation(hosts.compiled_folder(task), link)
    compilation.begin()
    encodings = encodings_of(task, link=link)
    compilation.tell()
    if task.ends == "encoded":
        link.send("finished")
        return
    trainer = setup.build_trainer(task, on_work=compilation.tell)
    link.send("ready", step=task.start_step, fingerprint=fingerprint(task))
    with build_batches(task, trainer=trainer, encodings=encodings) as batches:
        measure = measure_of(task, trainer=trainer, encodings=encodings)
        ending = Loop(trainer, setup.loop_plan(task), link, SystemClock(), measure).run(batches)
    link.send(ending)

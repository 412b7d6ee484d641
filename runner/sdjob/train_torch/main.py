"""The torch trainer's table of contents: read the task, build, restore, loop, say how it ended."""

import os
import traceback

import diffusers
import torch
import transformers

from sdjob.core.channel import Channel, inherited_channel
from sdjob.core.clock import SystemClock, process_age_s
from sdjob.core.errors import SdjobError, UsageError
from sdjob.link import Link, awaited_task
from sdjob.loop import Loop
from sdjob.spec.task import SampleTask, TrainTask, read_task
from sdjob.train_torch import setup
from sdjob.train_torch.batches import build_batches
from sdjob.train_torch.compiled import Compilation
from sdjob.train_torch.held_out import measure_of
from sdjob.train_torch.once import encodings_of
from sdjob.train_torch.sample import run_sample_task


def main() -> int:
    """Exit code 0: the task ended as its last message says; else the error's own."""
    channel = inherited_channel()
    if channel is None:
        raise UsageError("sdjob.train_torch is started by `sdjob run`, not by hand")
    channel.send({"event": "imported", "seconds": round(process_age_s(), 3)})
    task_file = awaited_task(channel)
    if task_file is None:
        return SdjobError.exit_code  # nobody is left to hear why
    try:
        task = read_task(task_file)
        torch.set_num_threads(task.threads)
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        if isinstance(task, SampleTask):
            run_sample_task(task, channel=channel)
        else:
            train(task, channel=channel)
    except SdjobError as error:
        channel.send({"event": "failed", "exit_code": error.exit_code, "what": str(error)})
        return error.exit_code
    except torch.OutOfMemoryError as error:
        channel.send({"event": "failed", "exit_code": 69, "what": f"the device is out of memory: {error}"})
        return 69
    except Exception as error:
        traceback.print_exc()
        channel.send({"event": "failed", "exit_code": 70, "what": f"{type(error).__name__}: {error}"})
        return 70
    return 0


def train(task: TrainTask, *, channel: Channel) -> None:
    link = Link(channel, on_parent_gone=lambda: os._exit(70))
    link.start()
    setup.make_deterministic(task)
    encodings = encodings_of(task, link=link)
    if task.ends == "encoded":
        link.send("finished")
        return
    accelerator = setup.build_accelerator(task)
    models = setup.build_models(task, accelerator=accelerator)
    trainer = setup.build_trainer(task, accelerator=accelerator, models=models)
    fingerprint = setup.fingerprint(accelerator)
    if task.job.train.compile:
        compilation = Compilation.begun(task, model=models.unet, accelerator=accelerator, link=link)
        trainer.on_work = compilation.tell
        fingerprint |= compilation.fingerprint()
    # What the weights start from, in order of precedence:
    # 1. a checkpoint of this run (weights, moments, EMA);
    # 2. train.init_from (weights alone);
    # 3. the base model; LoRA adapters as drawn from the seed.
    trainer.load(checkpoint=task.restore_from, init_from=task.init_from)
    link.send("ready", step=task.start_step, fingerprint=fingerprint)
    with build_batches(task, trainer=trainer, encodings=encodings) as batches:
        measure = measure_of(task, trainer=trainer, encodings=encodings)
        ending = Loop(trainer, setup.loop_plan(task, accelerator), link, SystemClock(), measure).run(batches)
    link.send(ending)
    setup.leave(accelerator)

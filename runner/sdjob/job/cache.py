"""`sdjob cache`: the encoders' pass alone, perhaps on a cheaper machine than the one that trains; and the end of its shards.
Writes no slot of the log.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sdjob.ckpt.engine import CommitLog
from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.core.owned import owned_folder, sweep
from sdjob.core.retry import Backoff
from sdjob.job import machine
from sdjob.job.accelerators import tpus
from sdjob.job.encodings import EncodedShards
from sdjob.job.gang import Gang
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.prepare import DEVICES, Run, Staged, pictures_of, resolution_of, shards_of, stage, train_task
from sdjob.job.resume import Resolution, check_identity, num_processes
from sdjob.job.run import newest_facts, refuse_unsupported, scratch_of
from sdjob.job.scratch import full_disk_errors
from sdjob.job.stop import StopRequest
from sdjob.job.unneeded import Unneeded, trained_on, unneeded_shards
from sdjob.spec.hardware import Accelerator, parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.spec.task import TrainTask, write_task
from sdjob.store.open import open_store
from sdjob.store.patient import PatientStore

FOLDER = "cache-"


def cache_job(job: JobSpec, *, stop: StopRequest, clock: Clock, log: Log) -> None:
    """Returns when every shard lies in the run's place."""
    with opened(job, stop=stop, clock=clock, log=log) as (run, folder):
        encode(run, folder=folder)


def prune_cache(job: JobSpec, *, delete: bool, stop: StopRequest, clock: Clock, log: Log) -> Unneeded:
    """What in the cache's place neither the job nor a checkpoint in reach needs, and deletes it if that is asked for."""
    with opened(job, stop=stop, clock=clock, log=log) as (run, folder):
        _, _, shards = planned(run, folder=folder)
        needed = {shard.name for shard in shards.plan.shards}
        for store in dict.fromkeys((run.store, shards.store)):  # one and the same where there is no run.cache
            needed |= trained_on(store, folder=folder, clock=clock, log=log)
        found = unneeded_shards(shards.store, needed=needed)
        stop.check()
        if delete:
            shards.store.delete(info.key for info in found.shards)
        return found


@contextmanager
def opened(job: JobSpec, *, stop: StopRequest, clock: Clock, log: Log) -> Generator[tuple[Run, Path]]:
    """The run, and a folder of this process's own."""
    refuse_unsupported(job)
    store = open_store(parse_place(job.checkpoint.to, base=Path.cwd()))
    commits = CommitLog(store, clock=clock, log=log)
    # The accelerator that trains decides the precision, whatever there is here.
    trains_on = parse_accelerator(job.run.accelerator)
    run = Run(job, PatientStore(store, backoff=Backoff(clock=clock)), commits, trains_on, stop, clock, log)
    root = scratch_of(run)
    with full_disk_errors(root):
        sweep(root, pattern=f"{FOLDER}*")
        with owned_folder(root / f"{FOLDER}{secrets.token_hex(8)}") as folder:
            yield run, folder


def planned(run: Run, *, folder: Path) -> tuple[Staged, Resolution, EncodedShards]:
    staged = stage(run, may_write=False)
    stored = newest_facts(run.commits, run.commits.replay())
    resolution = resolution_of(run, staged, stored=stored)
    if stored is not None:
        check_identity(resolution, stored=stored)
    shards = shards_of(run, staged, resolution, folder=folder, checkpoint=None)
    if shards is None:
        raise UsageError(
            "the encoders cannot run once for this job: train.cache is never, or data.crop makes new pictures at each step.",
            where="train.cache",
            next_step="Set train.cache: auto and data.crop: center.",
        )
    return staged, resolution, shards


def encode(run: Run, *, folder: Path) -> None:
    staged, resolution, shards = planned(run, folder=folder)
    here = accelerator_for(run.accelerator)
    task = encoding_task(run, staged, resolution, shards=shards, here=here, folder=folder)
    try:
        if shards.num_missing:
            run_trainers(run, task, shards=shards, here=here)
    finally:
        shards.finish()
    if shards.failure is not None:
        raise shards.failure
    run.stop.check()


def encoding_task(
    run: Run, staged: Staged, resolution: Resolution, *, shards: EncodedShards, here: Accelerator, folder: Path
) -> TrainTask:
    processes = num_processes(resolution.job, accelerator=here)
    encoding = shards.bring(num_processes=processes)
    task = train_task(
        run,
        staged,
        resolution,
        start_step=0,
        restore_from=None,
        pictures=pictures_of(run, staged, encode=encoding),
        folder=folder,
        compiled=None,
        encode=encoding,
    )
    threads = max(1, machine.num_cores() // processes)
    return replace(task, device=DEVICES[here.kind], threads=threads, ends="encoded")


def run_trainers(run: Run, task: TrainTask, *, shards: EncodedShards, here: Accelerator) -> None:
    def on_message(message: Message) -> None:
        if message["event"] == "shard":
            shards.heard(message)

    task_file = task.scratch / "task.json"
    write_task(task, task_file)
    processes = num_processes(task.job, accelerator=here)
    shape = GangShape.of(task, num_processes=processes, num_devices=here.devices_per_node)
    gang = Gang(run.stop, run.clock, on_message=on_message, watch=lambda: None)
    gang.run(trainer_commands(task_file, shape=shape, environment=os.environ))


def accelerator_for(asked: Accelerator) -> Accelerator:
    """The job's own where it is here, else what is."""
    num_gpus = len(machine.gpu_names())
    fits = {"cpu": True, "nvidia": num_gpus >= asked.devices_per_node, "tpu": bool(tpus().chips) and asked.hosts == 1}
    return asked if fits[asked.kind] else parse_accelerator(machine.accelerator_here() or "cpu")

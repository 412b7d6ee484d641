"""What an attempt stands on, and with it every node of a gang: the staged files, the resolved values, the trainer's task."""

from dataclasses import dataclass, field
from pathlib import Path

from sdjob.ckpt.engine import CommitLog
from sdjob.core.clock import Clock
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.data.index import Index
from sdjob.data.roles import roles_of
from sdjob.encodings.plan import make_plan, runs_once
from sdjob.job import machine
from sdjob.job.encodings import EncodedShards, wanted_of
from sdjob.job.fetch import Here
from sdjob.job.launch import GangShape, keeps_memory
from sdjob.job.nodes.node import ALONE, Node
from sdjob.job.pins import pinned, read_pins, write_pins
from sdjob.job.resume import Facts, Resolution, isa_of, num_processes, resolve, threads_of
from sdjob.job.stage import StagedModel, stage_init_from, stage_model
from sdjob.job.stage_data import stage_index, stage_pictures
from sdjob.job.standby import Standby
from sdjob.job.stop import StopRequest
from sdjob.spec.hardware import Accelerator, Kind, resolve_deterministic
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.spec.task import Device, EncodeTask, TrainTask
from sdjob.store.open import open_store, resolve_revision
from sdjob.store.patient import PatientStore

DEVICES: dict[Kind, Device] = {"cpu": "cpu", "nvidia": "cuda", "tpu": "tpu"}
NO_PICTURES = Path("/nowhere")  # all of them are encoded


@dataclass(frozen=True)
class Staged:
    job: JobSpec
    """With a commit wherever the job names a revision on the Hub."""

    model: StagedModel
    pictures: tuple[Path, ...] | None
    """A folder of each source. None where only the index was read: who trains gathers them."""

    index: Index
    init_from: Path | None
    hashes: dict[str, str]
    """Of the model's files and of what the weights start from."""


@dataclass
class Run:
    """What one command needs from its first look at the log on."""

    job: JobSpec
    store: PatientStore
    commits: CommitLog
    accelerator: Accelerator
    stop: StopRequest
    clock: Clock
    log: Log
    node: Node = ALONE
    standby: Standby = field(default_factory=Standby)
    """Trainer processes that wait for their task."""


def start_early(run: Run, *, stored: Facts | None) -> None:
    """The trainer's processes begin to import. What they are started with stands in the job, but for threads and instruction set,
    which are those of the commit that the attempt goes on from. Where that turns out to be another one, or node 0 names other
    threads, `Standby.take` starts them anew."""
    job, accelerator = run.job, run.accelerator
    processes, device = num_processes(job, accelerator=accelerator), DEVICES[accelerator.kind]
    run.standby.begin(
        GangShape(
            backend=job.train.backend,
            num_processes=processes,
            devices=accelerator.devices_per_node // processes,
            device=device,
            threads=threads_of(stored, job=job, accelerator=accelerator, num_cores=machine.num_cores()),
            deterministic=resolve_deterministic(job.train.deterministic, accelerator=accelerator),
            port=0,
            nodes=run.node.count,
            isa=isa_of(stored, widest=machine.isa(), nodes=job.run.nodes),
            keeps_memory=keeps_memory(job.train, device=device),
        )
    )


def stage(run: Run, *, may_write: bool) -> Staged:
    here = here_of(run)
    job, pins = pinned(run.job, stored=read_pins(run.store), resolve=resolve_revision)
    if may_write:
        write_pins(pins, store=run.store)
    model = stage_model(job, here=here)
    data = stage_index(job, store=run.store, may_write=may_write, here=here)
    init_from, start_hashes = stage_init_from(job, here=here)
    here.check_stop()
    return Staged(job, model, data.pictures, data.index, init_from, {**model.hashes, **start_hashes})


def here_of(run: Run) -> Here:
    return Here(machine.scratch_root(run.job), check_stop=run.stop.check, clock=run.clock, log=run.log)


def resolution_of(run: Run, staged: Staged, *, stored: Facts | None) -> Resolution:
    return resolve(
        staged.job,
        accelerator=run.accelerator,
        num_cores=machine.num_cores(),
        num_pictures=len(roles_of(staged.index, data=staged.job.data).train),
        index_sha256=staged.index.sha256,
        model_hashes=staged.hashes,
        stored=stored,
        widest_isa=machine.isa(),
        encodes_once=runs_once(staged.job, index=staged.index),
    )


def train_task(
    run: Run,
    staged: Staged,
    resolution: Resolution,
    *,
    start_step: int,
    restore_from: Path | None,
    pictures: tuple[Path, ...],
    folder: Path,
    compiled: Path | None,
    encode: EncodeTask | None = None,
) -> TrainTask:
    """`folder`: the attempt's own; the index is written there."""
    index_file = folder / "index.jsonl"
    index_file.write_bytes(staged.index.to_jsonl())
    return TrainTask(
        job=resolution.job,
        model=staged.model.folder,
        pictures=pictures[0],
        more_pictures=pictures[1:],
        index=index_file,
        scratch=folder,
        total_steps=resolution.total_steps,
        start_step=start_step,
        restore_from=restore_from,
        init_from=staged.init_from,
        device=DEVICES[run.accelerator.kind],
        threads=resolution.threads,
        isa=resolution.isa,
        compiled=compiled,
        encode=encode,
    )


def shards_of(
    run: Run, staged: Staged, resolution: Resolution, *, folder: Path, checkpoint: Path | None, node: Node = ALONE
) -> EncodedShards | None:
    """`folder`: the attempt's own; `checkpoint`: of the step that it goes on from. None where the encoders run at every step."""
    if not resolution.encodes_once:
        return None
    return EncodedShards(
        plan=make_plan(staged.index, job=resolution.job, model_hashes=staged.model.hashes),
        model_hashes=staged.model.hashes,
        store=encodings_store(run),
        scratch=machine.scratch_root(run.job),
        attempt=folder,
        wanted=wanted_of(checkpoint),
        stop=run.stop,
        clock=run.clock,
        log=run.log,
        node=node.number,
        nodes=node.count,
    )


def encodings_store(run: Run) -> PatientStore:
    if run.job.run.cache is None:
        return run.store
    return PatientStore(open_store(parse_place(run.job.run.cache, base=Path.cwd())), backoff=Backoff(clock=run.clock))


def pictures_of(run: Run, staged: Staged, *, encode: EncodeTask | None) -> tuple[Path, ...]:
    """Gathered only where something still looks at them."""
    if encode is not None and not any(encode.missing):
        return staged.pictures or (NO_PICTURES,)
    return staged.pictures or stage_pictures(staged.job, index=staged.index, here=here_of(run))

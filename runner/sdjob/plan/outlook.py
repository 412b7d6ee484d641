"""All that a plan says of a job, added up from its parts. Pure: what is on the disk was read before (models.py, pictures.py)."""

import math
from dataclasses import dataclass

from sdjob.ckpt.policy import SHARE_OF_NOTICE, fits_notice
from sdjob.plan.changes import Fitting, fitting_changes
from sdjob.plan.interruptions import Losses, Save, interval_s, known_every_s, losses
from sdjob.plan.memory import (
    EMA_BYTES,
    MASTER_BYTES,
    MOMENT_BYTES,
    Memory,
    adapters_of,
    memory_of,
    spread_over,
    text_trained,
    trained_params,
)
from sdjob.plan.models import KnownModel
from sdjob.plan.prices import Price, Row, chips_of, price_of
from sdjob.plan.rates import bytes_per_s, shares_of
from sdjob.plan.work import StepWork, step_work
from sdjob.spec.encoders import captions_run_once, pictures_run_once
from sdjob.spec.hardware import Accelerator, num_devices, num_machines, parse_accelerator, resolve_precision
from sdjob.spec.job import JobSpec
from sdjob.spec.run import notice_s

# An optimizer step reads weight, gradient and both moments and writes all but the gradient, in float32: 4 x 4 + 3 x 4 bytes.
OPTIMIZER_BYTES = 28
# From the start of a machine's process to its first step: image, files, imports, compilation. jobspecs/README.md: minutes.
START_S = 180.0
# One stream to a bucket of the same region and back; a machine's own disk is faster.
NETWORK_BYTES_PER_S = 200e6
# A copy to the host over PCIe 3.0 x16, half of its 16 GB/s: https://pcisig.com
COPY_BYTES_PER_S = 8e9
LEAST_STALL_S = 0.01  # of a save, however small
# Files of a published model hold float32.
FILE_BYTES = 4
# Beside the model's files and the checkpoints: pictures where nobody has counted them, logs, samples.
OTHER_SCRATCH = 10 * 2**30
PROCESS_BYTES = 3 * 2**30  # an interpreter with torch or jax in it, and decoded pictures


@dataclass(frozen=True)
class Range:
    low: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Length:
    steps: int | None
    """None where `epochs` are asked for, and nobody has counted the pictures."""

    pictures: int | None
    """In the data."""

    seen: int | None
    """Pictures over the whole run, one as often as it is seen."""

    epochs: float | None


@dataclass(frozen=True)
class Work:
    """FLOPs of one optimizer step over all devices."""

    unet: StepWork
    encoders: int
    trained_params: int

    @property
    def total(self) -> int:
        return self.unet.total + self.encoders


@dataclass(frozen=True)
class Checkpoint:
    size_bytes: int
    copy_s: float
    upload_s: float
    notice_s: float
    fits_notice: bool
    every_s: float | None
    """Seconds between commits, where steps have a known time."""


@dataclass(frozen=True)
class Transfer:
    """Bytes between the machines and the places."""

    model_bytes: int
    """Fetched at a start, where scratch is new; so are the pictures, whose size nobody knows beforehand."""

    restore_bytes: int
    """And at a start after an interruption."""

    commits: int | None
    commit_bytes: int | None
    """Of all of them."""

    published_bytes: int
    """At each place."""


@dataclass(frozen=True)
class Pod:
    """What a pod needs beside its devices, in bytes."""

    memory: int
    scratch: int


@dataclass(frozen=True)
class Outlook:
    job: JobSpec
    machine: Accelerator
    model: KnownModel
    length: Length
    work: Work
    memory: Memory
    fitting: list[Fitting]
    """Where it does not fit."""

    step_s: Range | None
    training_hours: Range | None
    hours: Range | None
    """With starts, interruptions and stalls."""

    losses: Losses | None
    """At the longer of both times."""

    price: Price | None
    usd: Range | None
    checkpoint: Checkpoint
    transfer: Transfer
    pod: Pod

    @property
    def devices(self) -> int:
        return num_devices(self.machine, nodes=self.job.run.nodes, slices=self.job.run.slices)

    @property
    def paid_devices(self) -> int:
        """GPUs, or TPU chips."""
        return chips_of(self.machine, nodes=self.job.run.nodes, slices=self.job.run.slices)


def outlook(job: JobSpec, *, model: KnownModel, pictures: int | None, prices: list[Row]) -> Outlook:
    machine = parse_accelerator(job.run.accelerator)
    length, work, memory = length_of(job, pictures=pictures), work_of(job, model=model), memory_of(job, model=model)
    step_s = step_time(job, machine=machine, work=work)
    training = step_s.times(length.steps / 3600) if step_s and length.steps else None
    checkpoint = checkpoint_of(job, machine=machine, trained=work.trained_params, step_s=step_s)
    both = [lost(job, machine=machine, checkpoint=checkpoint, hours=hours) for hours in ends(training)]
    hours = Range(*(end + one.total_s / 3600 for end, one in zip(ends(training), both, strict=True))) if training else None
    price = price_of(job, machine=machine, rows=prices)
    paid = chips_of(machine, nodes=job.run.nodes, slices=job.run.slices)
    transfer = transfer_of(job, model=model, length=length, checkpoint=checkpoint, work=work, training=training)
    return Outlook(
        job, machine, model, length, work, memory,
        fitting=fitting_changes(job, model=model) if memory.fits is False else [],
        step_s=step_s, training_hours=training, hours=hours, losses=both[-1] if both else None, price=price,
        usd=Range(*(price.of_hours(end, devices=paid) for end in ends(hours))) if price and hours else None,
        checkpoint=checkpoint, transfer=transfer, pod=pod_of(job, machine=machine, transfer=transfer, checkpoint=checkpoint),
    )  # fmt: skip


def ends(between: Range | None) -> list[float]:
    return [between.low, between.high] if between else []


def sum_params(model: KnownModel, job: JobSpec) -> int:
    resolution = job.data.resolution
    return sum(layer.params for layer in model.unet(width=resolution.width, height=resolution.height))


def length_of(job: JobSpec, *, pictures: int | None) -> Length:
    """Epochs mean ceil(epochs x pictures / global_batch) steps, as at a run's first attempt."""
    train, limit = job.train, job.data.max_samples
    count = min(pictures, limit) if pictures is not None and limit is not None else pictures
    steps = train.steps
    if steps is None and train.epochs is not None and count is not None:
        steps = math.ceil(train.epochs * count / train.global_batch)
    seen = None if steps is None else steps * train.global_batch
    return Length(steps, count, seen, epochs=seen / count if seen is not None and count else None)


def work_of(job: JobSpec, *, model: KnownModel) -> Work:
    train, resolution = job.train, job.data.resolution
    layers = model.unet(width=resolution.width, height=resolution.height)
    unet = step_work(layers, method=train.method, adapters=adapters_of(train), checkpointing=train.gradient_checkpointing)
    pictures = train.global_batch * (2 if job.data.prior else 1)
    # A text encoder that learns is run back too, by which all of it is done twice more.
    text = model.text_flops * (1 if train.text_encoder == "frozen" else 3)
    encoders = 0 if captions_run_once(job) else text
    if not pictures_run_once(job):
        encoders += sum(layer.flops for layer in model.vae_encoder(width=resolution.width, height=resolution.height))
    trained = trained_params(layers, train=train) + text_trained(job, model=model)
    return Work(unet.times(pictures), encoders * pictures, trained)


def step_time(job: JobSpec, *, machine: Accelerator, work: Work) -> Range | None:
    """None where no peak is known: of CPUs, of hardware without a name, and in float32."""
    peak, bandwidth = machine.device_peak_flops, bytes_per_s(machine)
    if peak is None or bandwidth is None or resolve_precision(job.train.precision, accelerator=machine) == "fp32":
        return None
    devices = num_devices(machine, nodes=job.run.nodes, slices=job.run.slices)
    least, most = shares_of(machine)
    own_params = work.trained_params / spread_over(job.train, machine=machine)
    update_s = OPTIMIZER_BYTES * own_params / bandwidth
    return Range(work.total / devices / (peak * most) + update_s, work.total / devices / (peak * least) + update_s)


def checkpoint_of(job: JobSpec, *, machine: Accelerator, trained: int, step_s: Range | None) -> Checkpoint:
    train, asked = job.train, job.checkpoint
    size = trained * (MASTER_BYTES + MOMENT_BYTES[train.optimizer.name] + (EMA_BYTES if train.ema else 0))
    upload_s, notice = size / NETWORK_BYTES_PER_S, notice_s(job.run)
    copy_s = size / COPY_BYTES_PER_S if machine.kind != "cpu" else 0.0
    known_s = known_every_s(spot=job.run.spot, machines=num_machines(machine, nodes=job.run.nodes, slices=job.run.slices))
    distances = [
        interval_s(Save(max(copy_s, LEAST_STALL_S), upload_s), interrupted_every_s=known_s) if asked.every == "auto" else None,
        asked.every_seconds,
        asked.every_steps * step_s.high if asked.every_steps and step_s else None,
    ]
    every_s = min((distance for distance in distances if distance), default=None)
    fits = fits_notice(size, bytes_per_s=NETWORK_BYTES_PER_S, seconds_left=max(0.0, notice - copy_s))
    return Checkpoint(size, copy_s, upload_s, notice, fits, every_s)


def lost(job: JobSpec, *, machine: Accelerator, checkpoint: Checkpoint, hours: float) -> Losses:
    machines = num_machines(machine, nodes=job.run.nodes, slices=job.run.slices)
    return losses(
        3600 * hours,
        every_s=known_every_s(spot=job.run.spot, machines=machines),
        commit_every_s=checkpoint.every_s or 3600 * hours,
        start_s=START_S,
        restore_s=checkpoint.size_bytes / NETWORK_BYTES_PER_S,
        stall_s=checkpoint.copy_s,
        commit_s=checkpoint.upload_s,
        saved_in_s=checkpoint.notice_s if checkpoint.fits_notice else None,
    )


def least_notice_s(size_bytes: int) -> float:
    return size_bytes / NETWORK_BYTES_PER_S / SHARE_OF_NOTICE


def transfer_of(
    job: JobSpec, *, model: KnownModel, length: Length, checkpoint: Checkpoint, work: Work, training: Range | None
) -> Transfer:
    commits = commits_of(job, steps=length.steps, training_s=training.high * 3600 if training else None, checkpoint=checkpoint)
    whole = FILE_BYTES * (sum_params(model, job) + model.vae_params + model.text_params)
    return Transfer(
        model_bytes=whole,
        restore_bytes=checkpoint.size_bytes,
        commits=commits,
        commit_bytes=None if commits is None else commits * checkpoint.size_bytes,
        # A LoRA is published in two forms.
        published_bytes=whole if job.train.method == "full" else 2 * MASTER_BYTES * work.trained_params,
    )


def commits_of(job: JobSpec, *, steps: int | None, training_s: float | None, checkpoint: Checkpoint) -> int | None:
    """The last step is always committed."""
    asked = job.checkpoint
    if asked.every is asked.every_seconds is None and asked.every_steps and steps:
        return math.ceil(steps / asked.every_steps)
    return math.ceil(training_s / checkpoint.every_s) if training_s and checkpoint.every_s else None


def pod_of(job: JobSpec, *, machine: Accelerator, transfer: Transfer, checkpoint: Checkpoint) -> Pod:
    """Of a model that is being read, and of what is trained a copy that waits for its upload; scratch has three checkpoints."""
    processes = 1 if job.train.backend == "flax" else machine.devices_per_node
    return Pod(
        memory=processes * PROCESS_BYTES + transfer.model_bytes + checkpoint.size_bytes,
        scratch=transfer.model_bytes + 3 * checkpoint.size_bytes + OTHER_SCRATCH,
    )

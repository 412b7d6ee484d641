"""The hardware that a job names, and what must divide by it."""

from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.spec.complete import devices_of
from sdjob.spec.hardware import Accelerator, parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at

ACCELERATOR, GLOBAL_BATCH, DEVICE_BATCH = at("run.accelerator"), at("train.global_batch"), at("train.device_batch")


def known_accelerator(job: JobSpec) -> Accelerator | None:
    """What the job names; None where it names nothing, or nothing that exists."""
    try:
        return parse_accelerator(job.run.accelerator) if job.run.accelerator else None
    except UsageError:
        return None  # `accelerator` below reports it


def accelerator(job: JobSpec) -> Iterator[Finding]:
    try:
        parse_accelerator(job.run.accelerator)
    except UsageError as error:
        yield Finding(ACCELERATOR, str(error))


def counts(job: JobSpec) -> Iterator[Finding]:
    named = known_accelerator(job)
    if named and job.run.nodes > 1 and named.kind == "tpu":
        what, instead = "counts machines of GPUs or CPUs", "a topology has its hosts; run.slices has several slices"
        yield Finding(at("run.nodes"), f"{what}, and the accelerator is {job.run.accelerator}", instead, reads=(ACCELERATOR,))
    if named and job.run.slices > 1 and named.kind != "tpu":
        what = f"counts TPU slices, and the accelerator is {job.run.accelerator}"
        yield Finding(at("run.slices"), what, "run.nodes counts machines", reads=(ACCELERATOR,))


def batch(job: JobSpec) -> Iterator[Finding]:
    train = job.train
    if "global_batch" not in train.model_fields_set or train.global_batch % train.device_batch:
        yield from device_batch(job)
        return
    devices = 1 if job.run.accelerator and known_accelerator(job) is None else devices_of(job)
    if train.global_batch % (devices * train.device_batch):
        yield Finding(
            GLOBAL_BATCH,
            f"{train.global_batch} pictures do not divide among {devices} devices with device_batch {train.device_batch}",
            multiples(devices * train.device_batch, near=train.global_batch),
            reads=(DEVICE_BATCH, ACCELERATOR, at("run.nodes"), at("run.slices")),
        )


def device_batch(job: JobSpec) -> Iterator[Finding]:
    train = job.train
    if train.global_batch % train.device_batch:
        what = f"{train.global_batch} pictures are not a multiple of device_batch, which is {train.device_batch}"
        yield Finding(GLOBAL_BATCH, what, multiples(train.device_batch, near=train.global_batch), reads=(DEVICE_BATCH,))


def multiples(step: int, *, near: int) -> str:
    below = near // step * step
    return f"allowed: multiples of {step}, as " + (f"{below} or {below + step}" if below else str(step))

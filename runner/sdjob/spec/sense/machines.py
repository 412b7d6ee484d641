"""The hardware that a job names, and what must divide by it."""

import re
from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.spec.complete import devices_of
from sdjob.spec.hardware import Accelerator, parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at

ACCELERATOR, GLOBAL_BATCH, DEVICE_BATCH = at("run.accelerator"), at("train.global_batch"), at("train.device_batch")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


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
    if named and job.run.nodes > 1 and named.kind != "nvidia":
        instead = "cpu:N has N processes" if named.kind == "cpu" else "a topology has its hosts; run.slices has several slices"
        yield Finding(
            at("run.nodes"), f"counts GPU nodes, and the accelerator is {job.run.accelerator}", instead, reads=(ACCELERATOR,)
        )
    if named and job.run.slices > 1 and named.kind != "tpu":
        what = f"counts TPU slices, and the accelerator is {job.run.accelerator}"
        yield Finding(at("run.slices"), what, "run.nodes counts GPU nodes", reads=(ACCELERATOR,))


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


def kubernetes(job: JobSpec) -> Iterator[Finding]:
    cluster, named = job.run.kubernetes, known_accelerator(job)
    if cluster is None:
        return
    for field, text in {"namespace": cluster.namespace, "queue": cluster.queue, "scratch": cluster.scratch}.items():
        if text is not None and text != "emptyDir" and not DNS_LABEL.fullmatch(text):
            yield Finding(at(f"run.kubernetes.{field}"), f"'{text}' is no name in Kubernetes: small letters, digits and hyphens")
    on_tpu = named is not None and named.kind == "tpu"
    if on_tpu and cluster.flavor in {"eks", "aks"}:
        yield Finding(at("run.kubernetes.flavor"), f"{cluster.flavor} has no TPUs", "allowed: gke, generic", reads=(ACCELERATOR,))
    if cluster.tpu_memlock and not on_tpu:
        yield Finding(at("run.kubernetes.tpu_memlock"), "is for TPUs, and run.accelerator names none", reads=(ACCELERATOR,))

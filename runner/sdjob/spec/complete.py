"""Defaults that depend on other fields, filled in once everything else is known to be right."""

from pathlib import Path
from typing import Any

from sdjob.spec.data import DataSpec, HeldOutSpec, PriorSpec, SourceSpec
from sdjob.spec.hardware import num_devices, parse_accelerator
from sdjob.spec.job import JobSpec, ModelSpec
from sdjob.spec.places import parse_place

ANYWHERE = Path("/")


def completed(job: JobSpec) -> JobSpec:
    """The job with its batch, its place and its revisions; completing it again changes nothing."""
    updates: dict[str, Any] = {
        "model": job.model.model_copy(update=pinned(job.model)),
        "data": job.data.model_copy(update=pinned_sources(job.data)),
    }
    if "global_batch" not in job.train.model_fields_set:
        updates["train"] = job.train.model_copy(update={"global_batch": devices_of(job) * job.train.device_batch})
    updates["checkpoint"] = job.checkpoint.model_copy(update=commit_defaults(job))
    return job.model_copy(update=updates)


def devices_of(job: JobSpec) -> int:
    """Of the whole job; one where the job leaves the hardware open."""
    return num_devices(parse_accelerator(job.run.accelerator), nodes=job.run.nodes, slices=job.run.slices)


def pinned_sources(data: DataSpec) -> dict[str, Any]:
    updates: dict[str, Any] = pinned(data)
    updates["sources"] = tuple(source.model_copy(update=pinned(source)) for source in data.sources)
    for name, part in {"prior": data.prior, "held_out": data.held_out}.items():
        updates[name] = part and part.model_copy(update=pinned(part))
    return updates


def pinned(part: ModelSpec | DataSpec | SourceSpec | PriorSpec | HeldOutSpec) -> dict[str, Any]:
    """The revision at its own field, whichever way it was written; none for a place that has no revisions."""
    place = parse_place(part.source, base=ANYWHERE) if part.source else None
    if place is None or place.scheme != "hf":
        return {"revision": None}
    if place.revision is None:
        return {}
    return {"source": str(part.source).removesuffix(f"@{place.revision}"), "revision": place.revision}


def commit_defaults(job: JobSpec) -> dict[str, Any]:
    given = job.checkpoint.model_fields_set
    updates: dict[str, Any] = {} if "to" in given else {"to": f"runs/{job.name}"}
    if job.checkpoint.every == "auto" and "every_steps" not in given:
        updates["every_steps"] = None
    return updates

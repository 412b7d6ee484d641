"""Places, and which of them must differ."""

from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.spec.complete import ANYWHERE
from sdjob.spec.data import DataSpec, HeldOutSpec, PriorSpec, SourceSpec
from sdjob.spec.job import JobSpec, ModelSpec
from sdjob.spec.places import HubKind, Place, parse_place
from sdjob.spec.problems import Finding, at, dotted
from sdjob.spec.sources import data_sources


def named_places(job: JobSpec) -> dict[str, str]:
    """Every place that the job names, by its field."""
    named = {
        "model.source": job.model.source,
        "model.config": job.model.config,
        "model.vae": job.model.vae,
        **{f"{source.field}.source": source.source for source in data_sources(job.data) if source.source},
        "train.init_from": job.train.init_from,
        "checkpoint.to": job.checkpoint.to if "to" in job.checkpoint.model_fields_set else f"runs/{job.name}",
        **{f"publish.{number}.to": target.to for number, target in enumerate(job.publish)},
        "run.scratch": job.run.scratch,
        "run.cache": job.run.cache,
    }
    return {field: text for field, text in named.items() if text is not None}


def known_places(job: JobSpec) -> dict[str, Place]:
    """Those that are places at all."""
    known: dict[str, Place] = {}
    for field, text in named_places(job).items():
        try:
            known[field] = parse_place(text, base=ANYWHERE)
        except UsageError:
            continue  # `are_places` below reports it
    return known


def are_places(job: JobSpec) -> Iterator[Finding]:
    for field, text in named_places(job).items():
        try:
            place = parse_place(text, base=ANYWHERE)
        except UsageError as error:
            yield Finding(at(field), str(error))
            continue
        if field == "run.scratch" and place.scheme != "file":
            yield Finding(
                at(field), f"'{text}' is not a folder of the machine that trains", "allowed: an absolute or a relative path"
            )


def revisions(job: JobSpec) -> Iterator[Finding]:
    known = known_places(job)
    for name, part in revised(job).items():
        place, path = known.get(f"{name}.source"), at(f"{name}.revision")
        if place is None or part.revision is None or "revision" not in part.model_fields_set:
            continue
        if place.revision is not None:
            what = f"the source names a revision too: @{place.revision}"
            yield Finding(path, what, "take one of them out", reads=(at(f"{name}.source"),))
        elif place.scheme != "hf":
            yield Finding(path, "only hf:// sources have revisions", "take it out", reads=(at(f"{name}.source"),))


def revised(job: JobSpec) -> dict[str, ModelSpec | DataSpec | SourceSpec | PriorSpec | HeldOutSpec]:
    """The parts that name a source and its revision, by their fields."""
    several = {f"data.sources.{number}": source for number, source in enumerate(job.data.sources)}
    others = {"data.prior": job.data.prior, "data.held_out": job.data.held_out}
    return {"model": job.model, "data": job.data, **several, **{name: part for name, part in others.items() if part}}


def hub_kinds(job: JobSpec) -> Iterator[Finding]:
    for field, place in known_places(job).items():
        wanted: HubKind = "datasets" if field.startswith("data.") else "models"
        if place.hub_kind not in {None, wanted}:
            yield Finding(
                at(field), f"hf://{place.hub_kind}/... stands where a place of {wanted} is needed", f"write hf://{place.name}"
            )


NO_REPOSITORIES = {
    "checkpoint.to": "the Hub cannot hold checkpoints: publish there, or set publish[].every_steps",
    "run.cache": "the Hub cannot hold encodings",
}


def are_no_repositories(job: JobSpec) -> Iterator[Finding]:
    for field, what in NO_REPOSITORIES.items():
        place = known_places(job).get(field)
        if place and place.scheme == "hf":
            yield Finding(at(field), what, "allowed: s3://bucket/prefix, gs://bucket/prefix, or a folder")


def apart(job: JobSpec) -> Iterator[Finding]:
    """What is written must not be what is read, or what is written under another name."""
    first: dict[tuple[str, str, str], str] = {}
    for field, place in known_places(job).items():
        written = field == "checkpoint.to" or field.startswith("publish.")
        key = (place.scheme, place.name, place.prefix)
        if written and key in first:
            yield Finding(
                at(field), f"is the same place as {first[key]}", "each needs a place of its own", reads=(at(first[key]),)
            )
        elif field != "run.scratch":
            first.setdefault(key, dotted(at(field)))

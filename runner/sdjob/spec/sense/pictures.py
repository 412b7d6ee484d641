"""The columns and shapes of the data."""

from collections.abc import Iterator

from sdjob.spec.data import DataSpec, HeldOutSpec
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.sources import data_sources

# What is said of each of several sources where there are several.
OF_ONE_SOURCE = (
    "source", "revision", "config", "split", "image_column", "caption_column", "max_samples", "caption_prefix", "trigger_word",
)  # fmt: skip
ONE_OF = "exactly one of share, count and source is needed"
OF_ITS_SOURCE = ("revision", "config", "split", "image_column", "caption_column", "max_samples")


def one_or_several(job: JobSpec) -> Iterator[Finding]:
    data = job.data
    if not data.sources and not data.source:
        yield Finding(
            at("data.source"), "is missing", "data.source names one place, data.sources several", reads=(at("data.sources"),)
        )
    for field in OF_ONE_SOURCE if data.sources else ():
        if field in data.model_fields_set and getattr(data, field) != DataSpec.model_fields[field].default:
            what = "stands beside data.sources"
            yield Finding(at(f"data.{field}"), what, "say it of each of the sources", reads=(at("data.sources"),))


def columns(job: JobSpec) -> Iterator[Finding]:
    for source in data_sources(job.data):
        if source.image_column == source.caption_column:
            what = f"is the image_column too: '{source.caption_column}'"
            yield Finding(at(f"{source.field}.caption_column"), what, reads=(at(f"{source.field}.image_column"),))


def held_out(job: JobSpec) -> Iterator[Finding]:
    spec = job.data.held_out
    if spec is None:
        return
    path, given = at("data.held_out"), [name for name in ("share", "count", "source") if getattr(spec, name) is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "says neither which pictures nor how many"
        yield Finding(path, what, ONE_OF, reads=tuple(at(f"data.held_out.{name}") for name in given))
    for field in OF_ITS_SOURCE:
        changed = getattr(spec, field) != HeldOutSpec.model_fields[field].default
        if spec.source is None and changed and field in spec.model_fields_set:
            yield Finding(at(f"data.held_out.{field}"), "does nothing without a source of its own", "take it out", reads=(path,))


def buckets(job: JobSpec) -> Iterator[Finding]:
    sides, resolution = job.data.buckets, job.data.resolution
    if sides is None:
        return
    if sides.min > sides.max:
        yield Finding(at("data.buckets.min"), f"{sides.min} is above max, which is {sides.max}", reads=(at("data.buckets.max"),))
        return
    for name in ("min", "max"):
        side = getattr(sides, name)
        if side % sides.step:
            what = f"{side} is not a multiple of step, which is {sides.step}"
            yield Finding(at(f"data.buckets.{name}"), what, reads=(at("data.buckets.step"),))
    if not all(sides.min <= side <= sides.max for side in (resolution.width, resolution.height)):
        what = f"{resolution.width} x {resolution.height} lies outside the buckets, which go from {sides.min} to {sides.max}"
        yield Finding(at("data.resolution"), what, reads=(at("data.buckets.min"), at("data.buckets.max")))

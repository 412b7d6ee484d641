"""The columns and shapes of the data."""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at


def columns(job: JobSpec) -> Iterator[Finding]:
    if job.data.image_column == job.data.caption_column:
        what = f"is the image_column too: '{job.data.caption_column}'"
        yield Finding(at("data.caption_column"), what, reads=(at("data.image_column"),))


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

"""Checkpoints, publishing and trackers."""

from collections.abc import Iterator

from sdjob.spec.checkpoint import ValidationSpec
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.sense.places import known_places


def commits(job: JobSpec) -> Iterator[Finding]:
    if job.checkpoint.every != "auto":
        return
    for field in ("every_steps", "every_seconds"):
        if field in job.checkpoint.model_fields_set and getattr(job.checkpoint, field) is not None:
            what = "is given beside every: auto, which chooses it"
            yield Finding(at(f"checkpoint.{field}"), what, "take one of them out", reads=(at("checkpoint.every"),))


def validation(job: JobSpec) -> Iterator[Finding]:
    asked, prompts = job.validation, at("validation.prompts")
    if asked is None:
        return
    if not asked.prompts and job.data.held_out is None:
        what = "is missing, and nothing is held out"
        yield Finding(prompts, what, "name captions to draw, or set data.held_out", reads=(at("data.held_out"),))
    for name in ("loss_every_steps", "loss_timesteps"):
        if job.data.held_out is None and getattr(asked, name) != ValidationSpec.model_fields[name].default:
            what = "does nothing where no pictures are held out"
            yield Finding(at(f"validation.{name}"), what, "set data.held_out", reads=(at("data.held_out"),))


def publishing(job: JobSpec) -> Iterator[Finding]:
    known = known_places(job)
    for number, target in enumerate(job.publish):
        place = known.get(f"publish.{number}.to")
        if place and place.scheme != "hf" and not target.private:
            what = "only repositories on the Hub are private or public; elsewhere the bucket or folder decides"
            yield Finding(at(f"publish.{number}.private"), what, "take it out", reads=(at(f"publish.{number}.to"),))


def trackers(job: JobSpec) -> Iterator[Finding]:
    for number, name in enumerate(job.track):
        if name in job.track[:number]:
            yield Finding(at(f"track.{number}"), f"{name} is named twice")

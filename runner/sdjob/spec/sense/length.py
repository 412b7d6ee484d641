"""How long a run is, and how its learning rate changes over that."""

import math
from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.train import ScheduleSpec

# Schedule and the field that only it reads: diffusers' get_scheduler passes no other.
EXTRAS = {"num_cycles": "cosine_with_restarts", "power": "polynomial", "step_rules": "piecewise_constant"}
WITHOUT_WARMUP = ("constant", "piecewise_constant")


def one_length(job: JobSpec) -> Iterator[Finding]:
    train = job.train
    both = (at("train.steps"), at("train.epochs"))
    if train.steps is None and train.epochs is None:
        yield Finding(
            at("train"), "says neither steps nor epochs", "exactly one of them is needed, as in steps: 1000", reads=both
        )
    if train.steps is not None and train.epochs is not None:
        yield Finding(at("train.epochs"), "steps and epochs are both given", "take one of them out", reads=both)


def warmup(job: JobSpec) -> Iterator[Finding]:
    schedule, steps = job.train.schedule, job.train.steps
    path, reads = at("train.schedule.warmup_steps"), (at("train.schedule.name"), at("train.steps"))
    if schedule.warmup_steps and schedule.name in WITHOUT_WARMUP:
        instead = "constant_with_warmup has one" if schedule.name == "constant" else "step_rules can begin with a small multiple"
        yield Finding(path, f"the schedule {schedule.name} has no warm-up", instead, reads=reads)
    elif steps is not None and schedule.warmup_steps and schedule.warmup_steps >= steps:
        what = f"the warm-up of {schedule.warmup_steps} steps never ends within {steps} steps"
        yield Finding(path, what, f"allowed: 0 to {steps - 1}", reads=reads)


def schedule_extras(job: JobSpec) -> Iterator[Finding]:
    for field, owner in EXTRAS.items():
        default = ScheduleSpec.model_fields[field].default
        if job.train.schedule.name != owner and getattr(job.train.schedule, field) != default:
            what = f"does nothing for the schedule {job.train.schedule.name}"
            yield Finding(at(f"train.schedule.{field}"), what, f"it belongs to {owner}", reads=(at("train.schedule.name"),))


def step_rules(job: JobSpec) -> Iterator[Finding]:
    schedule = job.train.schedule
    if schedule.name != "piecewise_constant":
        return
    path, allowed = at("train.schedule.step_rules"), 'as in "1:10,0.1:20,0.01"'
    if schedule.step_rules is None:
        yield Finding(path, "piecewise_constant needs its step_rules", allowed, reads=(at("train.schedule.name"),))
        return
    try:
        check_step_rules(schedule.step_rules)
    except UsageError as error:
        yield Finding(path, str(error), allowed, reads=(at("train.schedule.name"),))


def check_step_rules(text: str) -> None:
    """Multiple and step where it ends, in ascending order, then the last multiple; UsageError where that is not so."""
    *pieces, last = text.split(",")
    check_multiple(last)
    ends: list[int] = []
    for piece in pieces:
        multiple, _, end = piece.partition(":")
        check_multiple(multiple)
        if not end.strip().isdecimal():
            raise UsageError(f"'{piece}' is not multiple:step")
        ends.append(int(end))
    if ends != sorted(set(ends)):
        raise UsageError("the steps must ascend")


def check_multiple(text: str) -> None:
    try:
        sound = math.isfinite(float(text)) and float(text) >= 0
    except ValueError as error:
        raise UsageError(f"'{text}' is not a multiple of the learning rate") from error
    if not sound:
        raise UsageError(f"'{text}' is not a multiple from 0 up")

"""What an attempt is doing now, by its ledger. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sdjob.ledger.read import AttemptLedger
from sdjob.spec.job import JobSpec

Doing = Literal["staging", "caching", "compiling", "training", "saving", "publishing"]
WINDOW_STEPS = 20


@dataclass(frozen=True)
class Activity:
    state: Doing
    why: str
    host: str
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    images_per_s: float | None = None
    seconds_left: float | None = None
    committed_step: int | None = None
    committed_s: float | None = None
    """When it was committed, in Unix time, as is the next."""

    heard_s: float | None = None
    """When it last said anything."""


def activity_of(ledgers: Sequence[AttemptLedger], *, job: JobSpec | None) -> Activity | None:
    """Of the newest attempt; None before the first."""
    if not ledgers:
        return None
    last = ledgers[-1]
    total = next((event["total_steps"] for event in last.events if event["kind"] == "train"), job.train.steps if job else None)
    committed = max((event["step"] for ledger in ledgers for event in ledger.events if event["kind"] == "commit"), default=None)
    step = last.metrics[-1]["step"] if last.metrics else None
    state, why = doing(last, step=step, total=total, committed=committed, job=job)
    times = [record["time_s"] for record in (*last.events, *last.metrics)]
    step_s = mean_of(last, "step_s")
    return Activity(
        state=state,
        why=why,
        host=next((str(event.get("host", "")) for event in last.events if event["kind"] == "start"), ""),
        step=step,
        total_steps=total,
        loss=last.metrics[-1].get("loss") if last.metrics else None,
        images_per_s=mean_of(last, "images_per_s"),
        seconds_left=(total - step) * step_s if total and step is not None and step_s else None,
        committed_step=committed,
        committed_s=committed_at_s(ledgers, step=committed),
        heard_s=max(times, default=None),
    )


def doing(
    ledger: AttemptLedger, *, step: int | None, total: int | None, committed: int | None, job: JobSpec | None
) -> tuple[Doing, str]:
    kinds = [event["kind"] for event in ledger.events]
    compiles = job is not None and job.train.backend == "flax"
    if step is None and "ready" not in kinds:
        caches = kinds.count("encode") > kinds.count("encoded")
        return ("caching", "it runs the encoders once") if caches else ("staging", "it reads the model and the data")
    if step is None:
        return ("compiling", "it compiles the step") if compiles else ("training", "it makes its first step")
    if total is not None and step >= total:
        finished = committed is not None and committed >= total
        return ("publishing", "it writes what is finished") if finished else ("saving", "it commits its last step")
    return "training", "it trains"


def committed_at_s(ledgers: Sequence[AttemptLedger], *, step: int | None) -> float | None:
    commits = (event for ledger in reversed(ledgers) for event in ledger.events if event["kind"] == "commit")
    return next((event["time_s"] for event in commits if event["step"] == step), None)


def mean_of(ledger: AttemptLedger, name: str) -> float | None:
    values = [record[name] for record in ledger.metrics[-WINDOW_STEPS:] if record.get(name)]
    return fmean(values) if values else None

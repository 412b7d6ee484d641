"""Everything of a run that its page is made of, read from its place; nothing is written there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import yaml

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, SdjobError
from sdjob.core.log import Log
from sdjob.ledger.read import AttemptLedger, read_ledger
from sdjob.spec.job import JOB_KEY
from sdjob.store.base import ObjectMissingError, ObjectStore
from sdjob.track.past import drawn_pictures
from sdjob.track.row import Picture

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    name: str
    place: str
    ledgers: list[AttemptLedger]
    history: History
    job_text: str
    """As the run stored it; empty where it has not yet."""

    pictures: Mapping[int, tuple[Picture, ...]]
    """By step, each as it was drawn last."""

    published: tuple[str, ...]
    """The places that its last word in the log names."""

    read_s: float
    """When all this was read."""

    troubles: list[str] = field(default_factory=list[str])
    """What could not be read, a sentence each."""


def gather(store: ObjectStore, *, clock: Clock, log: Log) -> Gathered:
    """MissingError (66) where no attempt has written anything; parts that are damaged are told in `troubles`."""
    troubles: list[str] = []
    ledgers = read_ledger(store)
    if not ledgers:
        raise MissingError(
            "no run is here: it would have a ledger (attempts/).", where=store.uri, next_step="Name its job's checkpoint.to."
        )
    text = patiently(lambda: store.read(JOB_KEY).decode(errors="replace"), "Its job file", default="", troubles=troubles)
    history = patiently(
        lambda: CommitLog(store, clock=clock, log=log).replay(), "Its commit log", default=History(), troubles=troubles
    )
    job = parsed(text, troubles=troubles)  # not believed: it may be of another version
    keys = patiently(lambda: [info.key for info in store.list("attempts/")], "Its pictures", default=[], troubles=troubles)
    pictures = drawn_pictures(keys, ledgers=ledgers, prompts=prompts_in(job))
    return Gathered(
        name=str(job.get("name") or store.uri.rstrip("/").rpartition("/")[2]),
        place=store.uri,
        ledgers=ledgers,
        history=history,
        job_text=text,
        pictures=pictures,
        published=history.done.published if history.done else (),
        read_s=clock.unix_s(),
        troubles=[*troubles, *damage(ledgers)],
    )


def patiently(read: Callable[[], Result], what: str, *, default: Result, troubles: list[str]) -> Result:
    """A page without its job file is still a page; one that is not there yet is no trouble."""
    try:
        return read()
    except ObjectMissingError:
        return default
    except SdjobError as error:
        troubles.append(f"{what} could not be read: {error}")
        return default


def parsed(text: str, *, troubles: list[str]) -> dict[str, Any]:
    try:
        found: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        troubles.append(f"Its job file is no YAML: {type(error).__name__}")
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def part(job: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of the job file; empty where it is none."""
    found = job.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def prompts_in(job: Mapping[str, Any]) -> list[str]:
    prompts = part(job, "validation").get("prompts")
    return [str(prompt) for prompt in cast("list[Any]", prompts)] if isinstance(prompts, list) else []


def damage(ledgers: list[AttemptLedger]) -> list[str]:
    found: list[str] = []
    torn = sum(ledger.torn_lines for ledger in ledgers)
    if torn:
        words = "1 line of its ledger is" if torn == 1 else f"{torn:,} lines of its ledger are"
        found.append(f"{words} damaged or half-written, and left out")
    newer = [ledger for ledger in ledgers if ledger.is_newer]
    if newer:
        told = f"attempt {newer[0].attempt}" + (f" and {len(newer) - 1} more" if len(newer) > 1 else "")
        found.append(f"A newer sdjob wrote the ledger of {told} (schema {newer[0].schema}): what is shown of it may be wrong")
    return found

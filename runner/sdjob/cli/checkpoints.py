"""`sdjob checkpoints list|verify|prune PLACE`: what a run has, whether it is whole, and what may go."""

import argparse
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History, LoggedCommit
from sdjob.ckpt.verify import Report, verify
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, UnsoundError, UsageError
from sdjob.core.log import Log
from sdjob.ledger.read import read_attempt
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectStore
from sdjob.store.open import open_run

DEFAULT_KEEP = 3
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
VERBS = {
    "list": "every commit of a run, oldest first",
    "verify": "read every byte of what could be restored; exit 78 where anything is damaged",
    "prune": "retire all but the newest commits and delete what nothing names any more",
}
COLUMNS = ("slot", "step", "epoch", "time", "size", "state", "digest")


class Policy(TypedDict):
    keep: int
    keep_every: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="checkpoints_verb", required=True, metavar="list|verify|prune")
    for name, meaning in VERBS.items():
        verb = verbs.add_parser(name, help=meaning, description=meaning)
        verb.add_argument("place", metavar="PLACE", help="the job's checkpoint.to")
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")
    prune = verbs.choices["prune"]
    prune.add_argument("--keep", type=_count, metavar="N", help="how many stay (default: the job's checkpoint.keep)")
    prune.add_argument("--take-over", action="store_true", help="even if an attempt may be running: it stops with exit 76")


def execute(args: argparse.Namespace, *, log: Log) -> int:
    store, clock = open_run(parse_place(args.place, base=Path.cwd())), log.clock
    match args.checkpoints_verb:
        case "list":
            return list_commits(store, clock=clock, log=log, as_json=args.json)
        case "verify":
            return verify_commits(store, clock=clock, log=log, as_json=args.json)
        case _:
            return prune_commits(store, clock=clock, log=log, as_json=args.json, keep=args.keep, take_over=args.take_over)


def list_commits(store: ObjectStore, *, clock: Clock, log: Log, as_json: bool) -> int:
    history = CommitLog(store, clock=clock, log=log).replay()
    refuse_empty(history, place=store.uri)
    if as_json:
        print(json.dumps(history_fields(history, place=store.uri), indent=1))
        return 0
    rows = [COLUMNS, *(commit_row(commit) for commit in history.commits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def verify_commits(store: ObjectStore, *, clock: Clock, log: Log, as_json: bool) -> int:
    """Exit 78 where anything is damaged, even if an older commit is whole: a script that deletes a backup asks just this."""
    report = verify(CommitLog(store, clock=clock, log=log))
    refuse_empty(report.history, place=store.uri)
    print(json.dumps(report_fields(report), indent=1) if as_json else "\n".join(report_lines(report)))
    return 0 if report.is_whole else UnsoundError.exit_code


def prune_commits(store: ObjectStore, *, clock: Clock, log: Log, as_json: bool, keep: int | None, take_over: bool) -> int:
    commits = CommitLog(store, clock=clock, log=log, **stored_policy(store, keep=keep))
    history = commits.replay()
    refuse_empty(history, place=store.uri)
    if not take_over:
        refuse_running(history, store=store)
    claim = commits.claim(attempt="checkpoints prune", host=socket.gethostname())
    ledger = LedgerWriter(store, attempt=claim.epoch, clock=clock)
    ledger.event("start", verb="checkpoints prune")
    try:
        steps = commits.prune()
    finally:  # ended either way: the next prune need not take over from this one
        ledger.event("end", verb="checkpoints prune")
        ledger.flush()
    kept = sorted(commit.step for commit in commits.replay().live)
    if as_json:
        print(json.dumps({"place": store.uri, "retired_steps": steps, "kept_steps": kept}, indent=1))
    else:
        print(f"retired: {listed(steps)}\nkept: {listed(kept)}")
    return 0


def stored_policy(store: ObjectStore, *, keep: int | None) -> Policy:
    """What the run's own job keeps, `keep` before it: every Nth commit that the job asked for stays in any case."""
    from sdjob.job.export import read_job

    try:
        policy = read_job(store).checkpoint
    except MissingError:  # killed before its job was stored
        return {"keep": keep or DEFAULT_KEEP, "keep_every": None}
    return {"keep": keep or policy.keep, "keep_every": policy.keep_every}


def refuse_empty(history: History, *, place: str) -> None:
    """MissingError where the place holds no run."""
    if not history.slots:
        raise MissingError("there is no run in this place.", where=place, next_step="Name the job's checkpoint.to.")


def refuse_running(history: History, *, store: ObjectStore) -> None:
    """UsageError unless the run is done, or its last attempt recorded its end."""
    claim = history.last_claim
    if history.ends_in_done:
        return
    if claim is not None and any(event.get("kind") == "end" for event in read_attempt(store, attempt=claim.epoch).events):
        return
    who = f"attempt {claim.attempt} on host {claim.host}" if claim else "an attempt"
    raise UsageError(
        f"{who} has not recorded its end, so it may be running.",
        where=store.uri,
        next_step="Wait for it, or pass --take-over, which stops it with exit 76.",
    )


def history_fields(history: History, *, place: str) -> dict[str, Any]:
    return {
        "place": place,
        "done_step": history.done.step if history.done else None,
        "commits": [commit_fields(commit) for commit in history.commits],
        "damaged_slots": [slot.number for slot in history.damaged],
    }


def commit_fields(commit: LoggedCommit) -> dict[str, Any]:
    return {
        "slot": commit.slot,
        "step": commit.step,
        "epoch": commit.epoch,
        "time": utc(commit.time_s),
        "size_bytes": commit.size_bytes,
        "state": commit.state,
        "digest": commit.digest,
        "why": commit.why,
    }


def commit_row(commit: LoggedCommit) -> tuple[str, ...]:
    size, state, digest = readable_size(commit.size_bytes), commit.state, commit.digest[:16]
    return (str(commit.slot), str(commit.step), str(commit.epoch), utc(commit.time_s), size, state, digest)


def report_fields(report: Report) -> dict[str, Any]:
    return {
        "whole": report.is_whole,
        "restorable_step": report.restorable_step,
        "commits": [{**commit_fields(checked.commit), "damage": checked.damage} for checked in report.commits],
        "damaged_slots": [{"slot": slot.number, "why": slot.why} for slot in report.damaged_slots],
    }


def report_lines(report: Report) -> list[str]:
    lines = [f"slot {slot.number}: DAMAGED: {slot.why}" for slot in report.damaged_slots]
    for checked in report.commits:
        verdict = "whole" if not checked.damage else "DAMAGED: " + " ".join(checked.damage)
        lines.append(f"step {checked.commit.step} (slot {checked.commit.slot}): {verdict}")
    if report.restorable_step is not None:
        return [*lines, f"a new attempt goes on from step {report.restorable_step}"]
    lost = report.damaged_slots or report.history.commits
    return [*lines, "no checkpoint is whole: a new attempt would stop with exit 78" if lost else "nothing is committed yet"]


def readable_size(size_bytes: int) -> str:
    exponent = min(max(size_bytes.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{size_bytes} B" if exponent == 0 else f"{size_bytes / 1024**exponent:.1f} {UNITS[exponent]}"


def utc(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of checkpoints; at least 1")
    return int(text)

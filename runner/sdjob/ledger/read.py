"""The ledger of a run: every attempt's events and metrics, in order."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar, cast

from sdjob.core.retry import Backoff, with_retries
from sdjob.ledger.write import SCHEMA
from sdjob.store.base import ObjectStore, TransientStoreError

Record = dict[str, Any]
Result = TypeVar("Result")

READERS = 16
LARGEST = 2**53  # beyond it a float skips whole numbers; no step, no second and no loss of a run is there
OBJECT = re.compile(r"attempts/(\d{4,})/(events|metrics)-(\d{6,})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class AttemptLedger:
    """`torn_lines` counts what could not be read: a damaged or cut line costs itself and no other."""

    attempt: int
    events: list[Record] = field(default_factory=list[Record])
    """Each has `time_s`, a finite number, and `kind`, a text; all else may be missing or of any type."""

    metrics: list[Record] = field(default_factory=list[Record])
    """Each has `time_s` and `step`, a whole number."""

    torn_lines: int = 0
    schema: int = SCHEMA
    """The newest that its objects name; one above SCHEMA was written by a newer sdjob, and may hold what this one misreads."""

    @property
    def is_newer(self) -> bool:
        return self.schema > SCHEMA


def read_ledger(store: ObjectStore, *, backoff: Backoff | None = None) -> list[AttemptLedger]:
    """Every attempt that left records, oldest first. Raises what the store raises; an empty place has no attempts."""
    return _ledgers(store, prefix="attempts/", backoff=backoff or Backoff())


def read_attempt(store: ObjectStore, *, attempt: int, backoff: Backoff | None = None) -> AttemptLedger:
    """One attempt's records, empty where it left none."""
    ledgers = _ledgers(store, prefix=f"attempts/{attempt:04d}/", backoff=backoff or Backoff())
    return ledgers[0] if ledgers else AttemptLedger(attempt=attempt)


def records_in(data: bytes, *, kind: str) -> tuple[list[Record], int]:
    """The events or metrics in an object's lines, and how many lines are none."""
    records: list[Record] = []
    torn = 0
    for line in data.split(b"\n"):
        if not line:
            continue
        record = _record(line, kind=kind)
        if record is None:
            torn += 1
        else:
            records.append(record)
    return records, torn


def _ledgers(store: ObjectStore, *, prefix: str, backoff: Backoff) -> list[AttemptLedger]:
    def patiently(action: Callable[[], Result]) -> Result:
        return with_retries(action, transient=(TransientStoreError,), backoff=backoff)

    keys = patiently(lambda: [info.key for info in store.list(prefix)])
    found = sorted((int(m[1]), m[2], int(m[3]), m[0]) for m in map(OBJECT.fullmatch, keys) if m)
    events: dict[int, list[Record]] = {attempt: [] for attempt, *_ in found}
    metrics: dict[int, list[Record]] = {attempt: [] for attempt in events}
    torn = dict.fromkeys(events, 0)
    schemas = dict.fromkeys(events, SCHEMA)
    contents = _read_all([key for *_, key in found], read=lambda key: patiently(lambda: store.read(key)))
    for (attempt, kind, *_), content in zip(found, contents, strict=True):
        records, torn_lines = records_in(content, kind=kind)
        (events if kind == "events" else metrics)[attempt].extend(records)
        torn[attempt] += torn_lines
        schemas[attempt] = max(schemas[attempt], _schema_of(records))
    return [
        AttemptLedger(
            attempt=attempt, events=events[attempt], metrics=metrics[attempt], torn_lines=torn[attempt], schema=schemas[attempt]
        )
        for attempt in events
    ]


def _read_all(keys: list[str], *, read: Callable[[str], bytes]) -> list[bytes]:
    """In the order of the keys; several at a time, since a long run has thousands of small objects."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="ledger") as pool:
        return list(pool.map(read, keys))


def _record(line: bytes, *, kind: str) -> Record | None:
    try:
        parsed: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    record = cast("Record", parsed)
    is_one = is_step(record.get("step")) if kind == "metrics" else isinstance(record.get("kind"), str)
    return record if is_one and is_number(record.get("time_s")) else None


def is_step(value: object) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def is_number(value: object) -> TypeGuard[float]:
    """One to reckon with: neither a truth value nor nan nor an infinity, which json.loads lets through."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _schema_of(records: list[Record]) -> int:
    found = records[0].get("schema") if records else None
    return found if isinstance(found, int) else SCHEMA

"""What an attempt did, as JSON lines in numbered objects: attempts/0001/events-000001.jsonl and metrics-000001.jsonl.

Every line has `time_s` (Unix time) and a `kind` (events) or a `step` (metrics); an object's first line also has `schema`.
A float that is no number in JSON becomes null, and `not_finite` beside it says which of nan, inf, -inf it was.
No object is appended to, so a killed attempt loses what it had not flushed, at most some seconds, and damages nothing.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from sdjob.core.clock import Clock
from sdjob.core.errors import StorageError
from sdjob.core.log import redacted
from sdjob.core.retry import Backoff, with_retries
from sdjob.store.base import ObjectStore, TransientStoreError

SCHEMA = 1
FLUSH_LINES = 200
FLUSH_AGE_S = 5.0


def ledger_key(kind: str, *, attempt: int, number: int) -> str:
    return f"attempts/{attempt:04d}/{kind}-{number:06d}.jsonl"


def in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="ledger", daemon=True).start()


class LedgerWriter:
    """Events and metrics of one attempt, which is a claim's epoch, so that no two writers ever share an object.

    Any thread may add a line, and none waits for storage: what is due is written beside. Storage that fails never stops training
    either: the lines are kept and go with a later write. Only `flush`, which a save and the end of an attempt call, waits, and
    raises what still fails then.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        attempt: int,
        clock: Clock,
        backoff: Backoff | None = None,
        secrets: tuple[str, ...] = (),
        flush_age_s: float = FLUSH_AGE_S,
        on_record: Callable[[dict[str, Any]], None] = lambda _: None,
        beside: Callable[[Callable[[], None]], None] = in_thread,
    ) -> None:
        """secrets: values to blank out, such as a Log's; an error's text may repeat what it was given.
        flush_age_s: how long a line waits at most; what a killed attempt may lose.
        on_record: told each record at once, by whichever thread adds it.
        beside: has what is due written; a parameter for tests."""
        self._lock = threading.Lock()  # of the lines
        self._at_store = threading.Lock()  # one write at a time
        self._backoff = backoff or Backoff(clock=clock)
        self._clock = clock
        self._on_record = on_record
        self._beside = beside
        self._is_writing = False
        self._failure: Exception | None = None
        make = partial(_Series, store, attempt=attempt, secrets=secrets, flush_age_s=flush_age_s)
        self._events, self._metrics = make(kind="events"), make(kind="metrics")

    def event(self, kind: str, **fields: Any) -> None:
        """`time_s` among the fields says when it was, of what is told later. Raises what a write beside failed with, but for a
        StorageError."""
        self._add(self._events, {"kind": kind, **fields})

    def metrics(self, step: int, **fields: Any) -> None:
        """As `event`."""
        self._add(self._metrics, {"step": step, **fields})

    def flush(self) -> None:
        """Writes what is left, with retries. Raises StorageError or DeniedError; the lines are kept then."""
        for series in (self._events, self._metrics):
            with_retries(lambda series=series: self._write(series), transient=(TransientStoreError,), backoff=self._backoff)

    def _add(self, series: "_Series", record: dict[str, Any]) -> None:
        record = {"time_s": round(self._clock.unix_s(), 3), **record}
        self._on_record(record)
        now_s = self._clock.monotonic_s()
        with self._lock:
            series.add(record, now_s=now_s)
            failure, self._failure = self._failure, None
            due = not self._is_writing and bool(self._due(now_s))
            self._is_writing = self._is_writing or due
        if due:
            self._beside(self._write_due)
        if failure is not None:
            raise failure

    def _due(self, now_s: float) -> list["_Series"]:
        return [series for series in (self._events, self._metrics) if series.is_due(now_s)]

    def _write_due(self) -> None:
        failure = None
        for series in self._due(self._clock.monotonic_s()):
            try:
                self._write(series)
            except StorageError:  # told by `flush` if it lasts; until then not one call a line
                with self._lock:
                    series.put_off(now_s=self._clock.monotonic_s())
            except Exception as error:  # raised by the next line
                failure = error
        with self._lock:
            self._is_writing, self._failure = False, failure

    def _write(self, series: "_Series") -> None:
        """One try. The lines' lock is not held meanwhile: a store may take a minute to say nothing."""
        with self._at_store:
            with self._lock:
                lines, from_s = series.lines(), self._clock.monotonic_s()
            if lines:
                series.write(lines)
                with self._lock:
                    series.forget(len(lines), waiting_since_s=from_s)


class _Series:
    """One kind of record: the lines that wait, and the number of the object that they will be."""

    def __init__(self, store: ObjectStore, *, kind: str, attempt: int, secrets: tuple[str, ...], flush_age_s: float) -> None:
        self._store = store
        self._flush_age_s = flush_age_s
        self._secrets = secrets
        self._kind = kind
        self._attempt = attempt
        self._number = 1
        self._lines: list[str] = []
        self._waiting_since_s = 0.0
        self._due_lines = FLUSH_LINES

    def add(self, record: dict[str, Any], *, now_s: float) -> None:
        if not self._lines:
            self._waiting_since_s = now_s
        self._lines.append(redacted(json_line(record), secrets=self._secrets))

    def is_due(self, now_s: float) -> bool:
        aged = now_s - self._waiting_since_s >= self._flush_age_s
        return bool(self._lines) and (aged or len(self._lines) >= self._due_lines)

    def put_off(self, *, now_s: float) -> None:
        self._waiting_since_s = now_s
        self._due_lines = len(self._lines) + FLUSH_LINES

    def lines(self) -> list[str]:
        return self._lines.copy()

    def write(self, lines: Sequence[str]) -> None:
        """After an error the same object is written again, perhaps with more lines: then it only ever grows."""
        first = json_line({"schema": SCHEMA}).rstrip("}\n") + ", " + lines[0].removeprefix("{")
        key = ledger_key(self._kind, attempt=self._attempt, number=self._number)
        self._store.write(key, "".join([first, *lines[1:]]).encode())

    def forget(self, count: int, *, waiting_since_s: float) -> None:
        """So many lines are in the store; the next ones belong to another object."""
        del self._lines[:count]
        self._waiting_since_s = waiting_since_s
        self._number += 1
        self._due_lines = FLUSH_LINES


def json_line(record: dict[str, Any]) -> str:
    """One record as strict JSON; what JSON does not know is written as text."""
    not_finite: dict[str, str] = {}
    finite = {name: _finite(value, path=name, found=not_finite) for name, value in record.items()}
    if not_finite:
        finite["not_finite"] = not_finite
    return json.dumps(finite, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _finite(value: Any, *, path: str, found: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        found[path] = str(value)
        return None
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: _finite(inner, path=f"{path}.{name}", found=found) for name, inner in items}
    if isinstance(value, list | tuple):
        parts = cast("list[Any]", value)
        return [_finite(inner, path=f"{path}.{index}", found=found) for index, inner in enumerate(parts)]
    return value

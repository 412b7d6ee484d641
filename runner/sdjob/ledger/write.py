"""What an attempt did, as JSON lines in numbered objects: attempts/0001/events-000001.jsonl and metrics-000001.jsonl.

Every line has `time_s` (Unix time) and a `kind` (events) or a `step` (metrics); an object's first line also has `schema`.
A float that is no number in JSON becomes null, and `not_finite` beside it says which of nan, inf, -inf it was.
No object is appended to, so a killed attempt loses what it had not flushed, at most some seconds, and damages nothing.
"""

import json
import math
import threading
from collections.abc import Callable
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


class LedgerWriter:
    """Events and metrics of one attempt, which is a claim's epoch, so that no two writers ever share an object.

    Storage that fails never stops training: the lines are kept and go with a later flush. Only `flush`, which the end of an
    attempt calls, raises what still fails then. Any thread may write.
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
    ) -> None:
        """secrets: values to blank out, such as a Log's; an error's text may repeat what it was given.
        flush_age_s: how long a line waits at most; what a killed attempt may lose.
        on_record: told each record at once, by whichever thread adds it."""
        self._lock = threading.Lock()
        self._backoff = backoff or Backoff(clock=clock)
        self._clock = clock
        self._on_record = on_record
        self._events = _Series(store, kind="events", attempt=attempt, secrets=secrets, flush_age_s=flush_age_s)
        self._metrics = _Series(store, kind="metrics", attempt=attempt, secrets=secrets, flush_age_s=flush_age_s)

    def event(self, kind: str, **fields: Any) -> None:
        """`time_s` among the fields says when it was, of what is told later."""
        self._add(self._events, {"kind": kind, **fields})

    def metrics(self, step: int, **fields: Any) -> None:
        self._add(self._metrics, {"step": step, **fields})

    def flush(self) -> None:
        """Writes what is left, with retries. Raises StorageError or DeniedError; the lines are kept then."""
        for series in (self._events, self._metrics):
            with_retries(lambda series=series: self._write(series), transient=(TransientStoreError,), backoff=self._backoff)

    def _write(self, series: "_Series") -> None:
        """The lock is held for one try, not for the waits between: whoever adds a line meanwhile must not wait with us."""
        with self._lock:
            series.write()

    def _add(self, series: "_Series", record: dict[str, Any]) -> None:
        record = {"time_s": round(self._clock.unix_s(), 3), **record}
        self._on_record(record)
        with self._lock:
            series.add(record, now_s=self._clock.monotonic_s())
            for each in (self._events, self._metrics):
                each.write_when_due(self._clock.monotonic_s())


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
            record = {"schema": SCHEMA, **record}
            self._waiting_since_s = now_s
        self._lines.append(redacted(json_line(record), secrets=self._secrets))

    def write_when_due(self, now_s: float) -> None:
        if len(self._lines) < self._due_lines and now_s - self._waiting_since_s < self._flush_age_s:
            return
        try:
            self.write()
        except StorageError:  # told by `flush` if it lasts; until then not one call a line
            self._waiting_since_s = now_s
            self._due_lines = len(self._lines) + FLUSH_LINES

    def write(self) -> None:
        """After an error the same object is written again, perhaps with more lines: then it only ever grows."""
        if not self._lines:
            return
        key = ledger_key(self._kind, attempt=self._attempt, number=self._number)
        self._store.write(key, "".join(self._lines).encode())
        self._number += 1
        self._lines = []
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

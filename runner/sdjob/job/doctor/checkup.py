"""Runs checks one after the other, each in a thread, so that what hangs costs its time-out and no more."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sdjob.core.errors import StorageError
from sdjob.job.doctor.finding import Finding, asked, failed


@dataclass(frozen=True)
class Check:
    name: str
    look: Callable[[], Iterable[Finding]]
    """Yields finding by finding: what was found before a hang is told."""


@dataclass
class Checkup:
    timeout_s: float
    """For each finding."""

    hung: list[str] = field(default_factory=list[str])
    """Checks whose threads may still be waiting: whoever ends the process must not wait for them."""

    def findings(self, checks: Iterable[Check]) -> Iterator[Finding]:
        for check in checks:
            yield from self.look(check)

    def look(self, check: Check) -> Iterator[Finding]:
        found: queue.Queue[Finding | None] = queue.Queue()

        def work() -> None:
            for finding in asked(check.name, check.look):
                found.put(finding)
            found.put(None)

        threading.Thread(target=work, name=f"doctor: {check.name}", daemon=True).start()
        while True:
            try:
                finding = found.get(timeout=self.timeout_s)
            except queue.Empty:
                self.hung.append(check.name)
                yield failed(check.name, no_answer(self.timeout_s))
                return
            if finding is None:
                return
            yield finding


def no_answer(timeout_s: float) -> StorageError:
    return StorageError(
        f"no answer within {timeout_s:g} s; what else there is to ask here was not asked.",
        next_step="Check network, proxy and endpoint, or wait longer with --timeout.",
    )

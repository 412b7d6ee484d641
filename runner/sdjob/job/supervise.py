"""`--restarts N`: attempts in processes of their own, one after the other, and one that outlives them and starts the next.

What a cluster does for a pod this does on a single machine, with the same split of exit codes (core/errors.py).
"""

import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sdjob.core.clock import Clock
from sdjob.core.errors import FINAL_EXIT_CODES, NoProgressError, SdjobError, StoppedError
from sdjob.core.log import Log
from sdjob.job.before import Before
from sdjob.job.limits import check_progress
from sdjob.job.stop import RERUN, StopRequest
from sdjob.ledger.read import read_ledger
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONG_S = 10 * 60.0  # an attempt of this length was no false start: the next wait is a short one again
SIGNALLED = 128  # plus the signal's number: what a shell and a kubelet make of it
WATCH_S = 0.5  # how often an attempt is looked at


class Process(Protocol):
    """Of one attempt, as subprocess.Popen has it."""

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def send_signal(self, sig: int) -> None: ...


@dataclass
class Supervisor:
    """All methods belong to the main thread, where signals arrive."""

    start: Callable[[Before | None], Process]
    """Told of the attempt before."""

    restarts: int
    stop: StopRequest
    has_stalled: Callable[[], bool]
    """Asked after exit 70: whether attempts end again and again without a commit, which no restart mends."""

    wait: Callable[[float], None]
    """For so many seconds, or until a stop request."""

    clock: Clock
    log: Log

    def run(self) -> int:
        """The exit code of the last attempt; 75 where a stop request kept the next one from being started."""
        restart, false_starts = 0, 0
        before: Before | None = None
        while True:
            started_s, began_s = self.clock.monotonic_s(), self.clock.unix_s()
            code = self._attempt(before)
            before = Before(round(began_s, 3), round(self.clock.unix_s(), 3), code)
            if self.stop.requested:
                return code if is_final(code) else StoppedError.exit_code
            if self._is_last(code, restart=restart):
                return code
            restart += 1
            false_starts = 0 if self.clock.monotonic_s() - started_s >= LONG_S else false_starts + 1
            self._pause(code, restart=restart, seconds=min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** max(0, false_starts - 1)))
            if self.stop.requested:
                raise StoppedError("stopped on request, between two attempts.", next_step=RERUN)

    def _attempt(self, before: Before | None) -> int:
        """Its exit code; 128 and the signal's number where one ended it, as a shell says it."""
        process = self.start(before)
        while process.poll() is None:
            if self.stop.requested:
                process.send_signal(signal.SIGTERM)  # a second signal ends us at once, and the kernel then tells it again
                process.wait()
                break
            self.wait(WATCH_S)
        code = process.wait()
        return SIGNALLED - code if code < 0 else code

    def _is_last(self, code: int, *, restart: int) -> bool:
        if is_final(code) or (code == NoProgressError.exit_code and self.has_stalled()):
            return True
        if restart < self.restarts:
            return False
        words = f"{ended_with(code)}, and the {self.restarts} restart(s) are used up"
        self.log.warning("restarts-used-up", words, exit_code=code, restarts=self.restarts)
        return True

    def _pause(self, code: int, *, restart: int, seconds: float) -> None:
        words = f"{ended_with(code)}; restart {restart} of {self.restarts} in {seconds:g} s"
        self.log.event("restart", words, exit_code=code, restart=restart, restarts=self.restarts, wait_s=seconds)
        self.wait(seconds)


def is_final(code: int) -> bool:
    return code == 0 or code in FINAL_EXIT_CODES


def ended_with(code: int) -> str:
    signalled = f" (signal {code - SIGNALLED})" if code > SIGNALLED else ""
    return f"the attempt ended with exit code {code}{signalled}"


def until_stopped(stop: StopRequest) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        select.select([stop.wake_fd], [], [], seconds)

    return wait


def stalled(job: JobSpec) -> bool:
    """By the run's ledger. Where that cannot be read nothing is known, and the attempt itself will say why."""
    try:
        check_progress(read_ledger(open_store(parse_place(job.checkpoint.to, base=Path.cwd()))))
    except NoProgressError:
        return True
    except SdjobError:
        return False
    return False

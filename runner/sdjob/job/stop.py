"""Stop requests: SIGTERM and SIGINT, and the time that the notice leaves.

The first signal asks: finish the step, save, commit. A second one ends the process at once with exit 75, without a save;
its children die with it.
"""

import os
import signal
from dataclasses import dataclass, field
from types import FrameType

from sdjob.core.clock import Clock
from sdjob.core.errors import SdjobError, StoppedError

RERUN = "What is committed stands; run the same command again to go on."


@dataclass
class StopRequest:
    clock: Clock
    notice_s: float
    requested_at_s: float | None = None
    cause: SdjobError | None = None
    """What to end with instead of a StoppedError, where it was no signal that asked."""

    why: str = "stopped on request"
    """As a StoppedError begins."""

    wake_fd: int = field(init=False)
    """Readable from the first signal on, for a selector."""

    _wake_write_fd: int = field(init=False)
    _signalled: bool = False

    def __post_init__(self) -> None:
        self.wake_fd, self._wake_write_fd = os.pipe()

    def install(self) -> None:
        """From the main thread, before anything that takes long."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._signalled:
            os._exit(StoppedError.exit_code)
        self._signalled = True
        self.request()

    def request(self, *, cause: SdjobError | None = None, why: str | None = None) -> None:
        """The first request counts: a later one changes neither the cause nor the time that is left."""
        if self.requested_at_s is None:
            self.cause, self.why = cause, f"stopped on request: {why}" if why else self.why
            self.requested_at_s = self.clock.monotonic_s()
            os.write(self._wake_write_fd, b"!")

    @property
    def requested(self) -> bool:
        return self.requested_at_s is not None

    def seconds_left(self) -> float:
        """Of the notice; infinite before the request."""
        if self.requested_at_s is None:
            return float("inf")
        return self.requested_at_s + self.notice_s - self.clock.monotonic_s()

    def ending(self, how: str) -> SdjobError:
        """The error that a requested stop ends with; `how` says how far the attempt came."""
        return self.cause or StoppedError(f"{self.why}; {how}.", next_step=RERUN)

    def check(self) -> None:
        """Called between pieces of work that need no save."""
        if self.requested:
            raise self.ending("nothing was under way that a save could keep")

    def check_after(self, committed_step: int | None) -> None:
        """As `check`, and says how far the attempt came."""
        if self.requested:
            raise self.ending(f"step {committed_step} is committed" if committed_step else "no new step was committed")

"""Time as a parameter: what waits or measures takes a Clock, and tests pass one that they turn by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    def unix_s(self) -> float:
        """Seconds since 1970, for people and ledgers; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment, for durations; never jumps back."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def unix_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

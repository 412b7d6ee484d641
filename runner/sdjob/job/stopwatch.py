"""What of an attempt's start took how long: from the start of the process to the first new step.

The laps are this process's time, one after the other, and add up to it. What goes on beside it in another one, as the trainer's
imports do, counts only once this one does nothing but wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sdjob.core.clock import Clock
from sdjob.ledger.write import LedgerWriter

Result = TypeVar("Result")


@dataclass(frozen=True)
class Lap:
    name: str
    seconds: float
    over_s: float = field(default=0.0, compare=False)
    """On the clock that the watch has."""


@dataclass
class Stopwatch:
    clock: Clock
    age_s: float
    """Of the process when the watch is made: what Python and its imports have taken."""

    laps: list[Lap] = field(default_factory=list[Lap])
    _born_s: float = field(init=False)
    _lap_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._lap_s = self._born_s = self.clock.monotonic_s() - self.age_s

    def lap(self, name: str) -> Lap:
        """Ends the piece that began where the one before ended."""
        now_s = self.clock.monotonic_s()
        self.laps.append(Lap(name, round(now_s - self._lap_s, 3), now_s))
        self._lap_s = now_s
        return self.laps[-1]

    def apart(self, name: str, action: Callable[[], Result]) -> Result:
        """A lap of its own in the middle of the one that is running."""
        started_s = self.clock.monotonic_s()
        result = action()
        over_s = self.clock.monotonic_s()
        self.laps.append(Lap(name, round(over_s - started_s, 3), over_s))
        self.leave_out(over_s - started_s)
        return result

    def leave_out(self, seconds: float) -> None:
        """Of the lap that is running: they are told by themselves."""
        self._lap_s += seconds

    def total_s(self) -> float:
        """From the start of the process to the end of the last lap: the clock is not asked again, so that this is the sum of
        the laps and of what was told by itself, however long the telling took."""
        return round(self._lap_s - self._born_s, 3)


def timed(name: str, action: Callable[[], Result], *, watch: Stopwatch, ledger: LedgerWriter) -> Result:
    """Its seconds stand in the ledger by themselves, however it ends."""
    started_s = watch.clock.monotonic_s()
    try:
        return action()
    finally:
        seconds = watch.clock.monotonic_s() - started_s
        watch.leave_out(seconds)
        ledger.event("phase", name=name, seconds=round(seconds, 3))

"""Time as a parameter: what waits or measures takes a Clock, and tests pass one that they turn by hand."""

import os
import time
from pathlib import Path
from typing import Protocol

STAT = Path("/proc/self/stat")


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


def process_age_s() -> float:
    """Since the kernel made this process; 0 where there is no /proc."""
    if not STAT.is_file():
        return 0.0
    # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, field 22: ticks from the boot to the start
    ticks = int(STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))

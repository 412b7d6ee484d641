"""The one line that a person watches: bar, rate, time left, loss."""

from collections import deque
from dataclasses import dataclass, field

from sdjob.core.clock import Clock

BAR_WIDTH = 24
WINDOW_STEPS = 50  # of which the rate is taken


@dataclass
class Progress:
    total_steps: int
    clock: Clock
    _times_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_STEPS))

    def step_s(self) -> float | None:
        """Mean seconds a step over the last ones; None before the second."""
        if len(self._times_s) < 2:
            return None
        return (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)

    def line(self, *, step: int, loss: float, images: int) -> str:
        """Note that a step is over, and say how it stands."""
        self._times_s.append(self.clock.monotonic_s())
        filled = BAR_WIDTH * step // self.total_steps
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        rate = self.step_s()
        pace = f"  {images / rate:.1f} images/s  {duration((self.total_steps - step) * rate)} left" if rate else ""
        return f"[{bar}] step {step}/{self.total_steps}  loss {loss:.4f}{pace}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

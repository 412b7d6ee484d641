"""The one line that a person watches: bar, step, loss, time left, rate, and how old the last commit is."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdjob.core.clock import Clock

BAR_WIDTH, SHORTEST_BAR = 24, 6
WINDOW_STEPS = 50  # of which the rate is taken


@dataclass(frozen=True, kw_only=True)
class Stand:
    """How a training stands; None for what is not known."""

    step: int
    total_steps: int
    loss: float | None = None
    seconds_left: float | None = None
    images_per_s: float | None = None
    committed_step: int | None = None
    commit_age_s: float | None = None


def live_line(stand: Stand, *, columns: int | None) -> str:
    """No wider than that: words become terse and the bar short, then what is said last gives way. None is as wide as it likes."""
    words = "  ".join(parts_of(stand, terse=False))
    wanted = len(words) + len("[] ") + BAR_WIDTH
    room = wanted if columns is None else columns
    if room < wanted:
        words = fitting(list(parts_of(stand, terse=True)), room=room)
    width = min(BAR_WIDTH, room - len(words) - len("[] "))
    return f"{bar(stand, width=width)} {words}" if width >= SHORTEST_BAR else words[:room]


def fitting(parts: list[str], *, room: int) -> str:
    while len(parts) > 1 and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


def bar(stand: Stand, *, width: int) -> str:
    filled = min(width, width * stand.step // stand.total_steps) if stand.total_steps else 0
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def parts_of(stand: Stand, *, terse: bool) -> Iterator[str]:
    yield f"{'' if terse else 'step '}{stand.step}/{stand.total_steps}"
    if stand.loss is not None:
        yield f"loss {stand.loss:.4f}"
    if stand.seconds_left is not None:
        yield f"{duration(stand.seconds_left)} left"
    if stand.images_per_s is not None:
        yield f"{stand.images_per_s:.1f} images/s"
    if stand.committed_step is not None:
        known = [] if terse and stand.commit_age_s is not None else [f"{stand.committed_step}"]
        known += [f"{duration(stand.commit_age_s)} ago"] if stand.commit_age_s is not None else []
        yield f"commit {', '.join(known)}"


@dataclass
class Progress:
    total_steps: int
    clock: Clock
    committed: tuple[int, float] | None = None
    """The newest commit's step, and its Unix time; set by whichever thread knows of one."""

    _times_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_STEPS))

    def step_s(self) -> float | None:
        """Mean seconds a step over the last ones; None before the second."""
        if len(self._times_s) < 2:
            return None
        return (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)

    def stepped(self, *, step: int, loss: float, images: int) -> Stand:
        """Note that a step is over, and say how it stands."""
        self._times_s.append(self.clock.monotonic_s())
        rate = self.step_s()
        committed = self.committed
        return Stand(
            step=step,
            total_steps=self.total_steps,
            loss=loss,
            seconds_left=(self.total_steps - step) * rate if rate else None,
            images_per_s=images / rate if rate else None,
            committed_step=committed[0] if committed else None,
            commit_age_s=max(0.0, self.clock.unix_s() - committed[1]) if committed else None,
        )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

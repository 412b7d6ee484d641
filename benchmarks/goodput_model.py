"""A run on machines that are taken away, in virtual time: what each paid second went into. Pure arithmetic, no clock.

A machine lives for some seconds and is paid for all of them. On it a process starts, restores the newest commit, trains, and
saves as `runner/sdjob/loop.py` and `job/saves.py` do: the copy stalls the training, the commit follows beside it, one save is
under way at a time, and one that falls due meanwhile is skipped. `benchmarks/goodput.py` feeds it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from sdjob.ckpt.policy import fits_notice

EPSILON = 1e-9  # of a step: a machine that goes in the very moment a step ends has done it


@dataclass(frozen=True, kw_only=True)
class Costs:
    step_s: float
    start_s: float
    """From the start of the machine's process to its first step, without the restore."""

    restore_s: float
    stall_s: float
    """Of the training, a save."""

    commit_s: float
    """From the end of the stall until the commit stands."""

    size_bytes: int
    notice_s: float
    replace_s: float
    """From the end of one machine to the start of the next one's process."""

    replace_paid: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    name: str
    every_steps: int | None = None
    every_seconds: float | None = None
    beside: bool = True
    """False: training waits until the save stands in storage."""

    at_notice: bool = True


@dataclass
class Parts:
    """Seconds of paid time by what they went into."""

    useful: float = 0.0
    """Steps that stand in the end."""

    start: float = 0.0
    restore: float = 0.0
    lost: float = 0.0
    """Steps that had to be trained again."""

    stall: float = 0.0
    ending: float = 0.0
    """From the notice, or from the last step, to the end: the last save, and a machine that waits to be taken."""

    waiting: float = 0.0
    """For the next machine, where that is paid."""

    @property
    def paid(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))

    def add(self, other: "Parts") -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


@dataclass(frozen=True)
class Outcome:
    parts: Parts
    lives: int
    committed_step: int
    done: bool

    @property
    def share(self) -> float:
        return self.parts.useful / self.parts.paid


def replay(
    uptimes_s: Iterable[float], *, costs: Costs, policy: Policy, total_steps: int, most_paid_s: float = math.inf
) -> Outcome:
    """Machine after machine until the run is done, the uptimes end, or so much has been paid."""
    parts, step, lives, done = Parts(), 0, 0, False
    for uptime_s in uptimes_s:
        if lives and costs.replace_paid:
            parts.waiting += costs.replace_s
        life = Life(costs, policy, uptime_s=uptime_s, start_step=step, total_steps=total_steps)
        parts.add(life.live())
        step, lives, done = life.committed, lives + 1, life.done
        if done or parts.paid >= most_paid_s:
            break
    return Outcome(parts, lives, step, done)


@dataclass
class Life:
    """One machine, from the start of its process until it goes."""

    costs: Costs
    policy: Policy
    uptime_s: float
    start_step: int
    total_steps: int
    done: bool = False
    now_s: float = 0.0
    step: int = 0
    committed: int = 0
    has_committed: bool = False
    """Whether this process knows what an upload takes."""

    _on_way: tuple[float, int] | None = None
    """When the save under way will stand, and of which step it is."""

    _saved_s: float = 0.0
    _parts: Parts = field(default_factory=Parts)

    def live(self) -> Parts:
        self.step = self.committed = self.start_step
        if self._begin():
            self._train()
        parts, useful_s = self._parts, (self.committed - self.start_step) * self.costs.step_s
        parts.useful = useful_s
        end_s = self.now_s if self.done else self.uptime_s
        known_s = parts.start + parts.restore + parts.stall + parts.ending + useful_s
        parts.lost = round(end_s - known_s, 6) + 0.0  # of differences as small as floats make them nothing, not even a sign
        return parts

    @property
    def _stop_s(self) -> float:
        """When training is asked to stop, or just ends."""
        return max(0.0, self.uptime_s - self.costs.notice_s) if self.policy.at_notice else self.uptime_s

    def _begin(self) -> bool:
        """False where the machine goes, or is about to, before there is a first step."""
        restore_s = self.costs.restore_s if self.start_step else 0.0
        self._parts.start = min(self.costs.start_s, self._stop_s)
        self._parts.restore = min(restore_s, self._stop_s - self._parts.start)
        self.now_s = self._saved_s = self.costs.start_s + restore_s
        if self.now_s < self._stop_s:
            return True
        self.now_s = self.uptime_s
        self._parts.ending = self.uptime_s - self._stop_s
        return False

    def _train(self) -> None:
        step_s = self.costs.step_s
        while (until_s := self.now_s + (num := self._steps_to_save()) * step_s) <= self._stop_s + EPSILON * step_s:
            self.now_s, self.step = until_s, self.step + num
            if self.step == self.total_steps:
                return self._finish()
            self._save()
        if self.policy.at_notice:
            return self._obey()
        self._settle(self.uptime_s)
        return None

    def _steps_to_save(self) -> int:
        left = self.total_steps - self.step
        if self.policy.every_steps:
            return min(left, self.policy.every_steps - self.step % self.policy.every_steps)
        if self.policy.every_seconds:
            due_s = self.policy.every_seconds - (self.now_s - self._saved_s)
            return min(left, max(1, math.ceil(due_s / self.costs.step_s - EPSILON)))
        return left

    def _save(self) -> None:
        self._settle(self.now_s)
        if self._on_way is None:
            begun_s = self.now_s
            self.now_s += self.costs.stall_s
            self._on_way = (self.now_s + self.costs.commit_s, self.step)
            if not self.policy.beside:
                self.now_s += self.costs.commit_s
            self._parts.stall += min(self.now_s, self.uptime_s) - begun_s
        self._saved_s = self.now_s

    def _settle(self, now_s: float) -> None:
        """The save under way stands, if it does by then."""
        if self._on_way is not None and self._on_way[0] <= now_s:
            self.committed, self._on_way, self.has_committed = self._on_way[1], None, True

    def _finish(self) -> None:
        """The last step is saved after the save under way. The machine may go in between."""
        trained_s = self.now_s
        if self._save_last(must=True):
            self.done = True
        else:
            self.now_s = self.uptime_s
        self._parts.ending += self.now_s - trained_s

    def _obey(self) -> None:
        """The notice: the step under way is finished and saved, if that can be expected to fit."""
        steps = max(0, math.ceil((self._stop_s - self.now_s) / self.costs.step_s - EPSILON))
        steps = min(steps, self.total_steps - self.step)
        self.now_s, self.step = self.now_s + steps * self.costs.step_s, self.step + steps
        if self.now_s > self.uptime_s:
            self._settle(self.uptime_s)
            self.now_s = self.uptime_s
            return
        self._parts.ending += self.uptime_s - self.now_s
        self._save_last(must=False)
        self.now_s = self.uptime_s

    def _save_last(self, *, must: bool) -> bool:
        """Whether it stands before the machine goes."""
        if self._on_way is not None:
            self.now_s = max(self.now_s, min(self._on_way[0], self.uptime_s))
            self._settle(self.now_s)
        self.now_s += self.costs.stall_s
        fits = must or not self.has_committed or self._fits(self.uptime_s - self.now_s)
        if not fits or self._on_way is not None or self.now_s + self.costs.commit_s > self.uptime_s:
            return False
        self.now_s += self.costs.commit_s
        self.committed = self.step
        return True

    def _fits(self, left_s: float) -> bool:
        bytes_per_s = self.costs.size_bytes / max(self.costs.commit_s, 1e-3)
        return fits_notice(self.costs.size_bytes, bytes_per_s=bytes_per_s, seconds_left=left_s)

"""`checkpoint.every: auto`: how far apart commits are, from what a save costs and how often runs like this one are interrupted.

The rule itself is in plan/interruptions.py. When commits are made never changes what is trained: a resume is as exact from any of
them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from sdjob.core.clock import Clock
from sdjob.ledger.add_up import hours_used
from sdjob.ledger.read import AttemptLedger
from sdjob.plan.interruptions import Save, interval_s, known_every_s
from sdjob.spec.hardware import Accelerator, parse_accelerator
from sdjob.spec.job import JobSpec

QUIET_STEPS = 50  # whose median is how long a step takes
WORTH_TELLING = 0.2  # a smaller change is noise


def interrupted_every_s(job: JobSpec, *, accelerator: Accelerator, ledgers: Sequence[AttemptLedger]) -> float:
    """What is known of such machines counts as one interruption; the run's own attempts come on top, one by one. The gang is
    interrupted by any of its machines. ledgers: of the attempts before this one."""
    known_s = known_every_s(spot=job.run.spot, machines=job.run.nodes * job.run.slices * accelerator.hosts)
    interruptions = sum(not ended_by_itself(ledger) for ledger in ledgers)
    return (known_s + 3600 * hours_used(ledgers)) / (1 + interruptions)


def ended_by_itself(ledger: AttemptLedger) -> bool:
    return any(event["kind"] == "end" and event.get("exit_code") == 0 for event in ledger.events)


def interval_of(job: JobSpec, *, ledgers: Sequence[AttemptLedger], clock: Clock, tell: "Tell") -> "Interval":
    """ledgers: of the attempts before this one."""
    every_s = interrupted_every_s(job, accelerator=parse_accelerator(job.run.accelerator), ledgers=ledgers)
    return Interval(every_s, clock, tell, save=last_save(ledgers))


def begun(job: JobSpec, *, seconds: float) -> JobSpec:
    """What the trainer is told at its start; later it is told the seconds alone."""
    checkpoint = job.checkpoint.model_copy(update={"every": None, "every_seconds": seconds})
    return job.model_copy(update={"checkpoint": checkpoint})


def last_save(ledgers: Sequence[AttemptLedger]) -> Save | None:
    """As an earlier attempt measured it."""
    for ledger in reversed(ledgers):
        for event in reversed(ledger.events):
            if event["kind"] == "interval" and "cost_s" in event:
                return Save(event["cost_s"], event["upload_s"])
    return None


Tell = Callable[[float, str, dict[str, Any]], None]
"""Told the seconds between two commits, the sentence that says why, and its figures."""


@dataclass
class Interval:
    """`stepped` and `interrupted` belong to the thread that hears the trainer; `saved` to that of the saves."""

    interrupted_every_s: float
    clock: Clock
    tell: Tell
    save: Save | None = None
    seconds: float = field(init=False)
    _stepped_s: float | None = None
    _quiet_s: "deque[float]" = field(default_factory=lambda: deque[float](maxlen=QUIET_STEPS))
    _busy_s: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self._choose(interval_s(self.save, interrupted_every_s=self.interrupted_every_s))

    def stepped(self, *, saving: bool) -> None:
        """A step is over; `saving`: a save was under way beside it."""
        now_s = self.clock.monotonic_s()
        if self._stepped_s is not None:
            (self._busy_s if saving else self._quiet_s).append(now_s - self._stepped_s)
        self._stepped_s = now_s

    def interrupted(self) -> None:
        """Something else than training took time: the step that comes next says nothing."""
        self._stepped_s = None

    def saved(self, stall_s: float, upload_s: float) -> None:
        """A save is committed. Its cost: the standstill of the copy, and what the steps beside the upload took longer."""
        busy_s, self._busy_s = self._busy_s, []
        slower_s = sum(busy_s) - len(busy_s) * median(self._quiet_s) if self._quiet_s else 0.0
        cost_s = min(max(slower_s, stall_s), stall_s + upload_s)
        if self.save is not None:  # half of what was known: one noisy neighbour is no rule
            cost_s, upload_s = (cost_s + self.save.cost_s) / 2, (upload_s + self.save.upload_s) / 2
        self.save = Save(round(cost_s, 4), round(upload_s, 4))
        seconds = interval_s(self.save, interrupted_every_s=self.interrupted_every_s)
        if abs(seconds - self.seconds) > WORTH_TELLING * self.seconds:
            self._choose(seconds)

    def _choose(self, seconds: float) -> None:
        self.seconds = seconds
        every_s = {"interrupted_every_s": round(self.interrupted_every_s)}
        if self.save is None:
            self.tell(seconds, f"the first commit after {seconds:g} s, to see what one costs", every_s)
            return
        cost = f"one costs {self.save.cost_s:.2f} s and is uploaded in {self.save.upload_s:.1f} s"
        why = f"{cost}, an interruption comes every {self.interrupted_every_s / 3600:.1f} hours"
        self.tell(seconds, f"a commit every {seconds:.0f} s: {why}", {**asdict(self.save), **every_s})

"""What a schedule is made of, drawn from its seed: who takes part, what the weather is, how the baton wanders.

Each schedule draws a few kinds of trouble, not all at once: where everything goes wrong, nobody gets far enough to do harm
(swarm testing, https://doi.org/10.1145/2338965.2336763).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from simulator.scheduler import Actor, Call, Fate

WRITES = ("create", "write", "write_file", "delete")
READS = ("read", "read_to")
METHODS = (*WRITES, *READS, "stat", "list")
TROUBLES: dict[Fate, tuple[str, ...]] = {
    "busy": METHODS,
    "lost": WRITES,
    "late": WRITES,
    "twice": WRITES,
    "denied": ("list", "read", "create"),
    "flip": READS,
    "short": READS,
    "stale": ("list",),
    "empty": ("list",),
    "pause": METHODS,
}
PODS = (1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 5, 8)  # two say most, in the least time
KEPT: tuple[Literal["no", "sound", "damaged"], ...] = ("no", "no", "no", "no", "sound", "damaged")


@dataclass(frozen=True)
class Plan:
    seed: int
    pods: int
    """How many run at a time."""

    restarts: int
    """How often a pod whose attempt ended with an error starts another."""

    readers: int
    saves: int
    keep: int
    keep_every: int | None
    tries: int
    """How often a call is tried before it has failed."""

    exact: bool
    """Whether two attempts compute the same bytes."""

    recurring: bool
    """Whether one file's content comes back after it was gone."""

    probe: bool
    many_slots: int
    """From how many slots on a log is read by several readers."""

    troubles: Mapping[Fate, float]
    """How likely each is, at a call that it can befall."""

    crash_after: int
    """About so many calls until a process dies; 0 for never."""

    burst: float
    """How likely the same actor goes on."""

    damage: int
    honest: bool
    late_to_the_end: bool
    """Whether requests under way may still arrive after all others have ended."""

    kept: Literal["no", "sound", "damaged"] = "no"
    """Whether copies of the last commit lie on a pod's scratch."""


def drawn(seed: int) -> Plan:
    rng = random.Random(seed)
    kinds = rng.sample(sorted(TROUBLES), k=rng.choice((0, 1, 1, 2, 2, 3)))
    damage = rng.choice((0, 0, 0, 0, 0, 1, 2))
    honest = rng.random() < 0.99
    return Plan(
        seed=seed,
        pods=rng.choice(PODS) if not damage else rng.choice((1, 2, 3)),
        restarts=rng.choice((0, 0, 1, 2)),
        readers=rng.choice((0, 0, 0, 0, 1, 2)),
        saves=rng.choice((1, 2, 2, 2, 3, 3, 5)),
        keep=rng.choice((1, 1, 2, 3)),
        keep_every=rng.choice((None, None, 2)),
        tries=rng.choice((2, 3, 4)),
        exact=rng.random() < 0.7,
        recurring=rng.random() < 0.3,
        probe=not honest or rng.random() < 0.2,
        many_slots=rng.choice((4, 64, 64, 64)),
        troubles={kind: rng.choice((0.01, 0.03, 0.1)) * (5 if TROUBLES[kind] == ("list",) else 1) for kind in kinds},
        crash_after=rng.choice((0, 10, 25, 50, 100)),
        burst=rng.choice((0.0, 0.5, 0.9, 0.97)),
        damage=damage,
        honest=honest,
        late_to_the_end=rng.random() < 0.5,
        kept=rng.choice(KEPT),
    )


class SeededDirector:
    """Every choice from one generator: the same seed is the same schedule, call by call."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rng = random.Random(plan.seed + 1)
        self._mangled: set[tuple[str, str]] = set()
        self._dying = 1 / plan.crash_after if plan.crash_after else 0.0
        self._befalling = {
            method: [(kind, likely) for kind, likely in plan.troubles.items() if method in TROUBLES[kind]] for method in METHODS
        }
        self.fair = False
        """Set for the end: no trouble any more."""

    def choose(self, ready: list[Actor], *, last: Actor | None) -> Actor:
        if last is not None and last in ready and self._rng.random() < self._plan.burst:
            return last
        return self._rng.choice(ready)

    def fate(self, call: Call) -> Fate | None:
        if self.fair:
            return None
        if self._dying and self._rng.random() < self._dying:
            return "crash"
        for kind, likely in self._befalling[call.method]:
            if self._rng.random() < likely and not self._again(kind, call):
                return kind
        return None

    def pause(self) -> int:
        return self._rng.choice((20, 100, 400, 5000))

    def pick(self, number: int) -> int:
        return self._rng.randrange(number)

    def deliver(self, waiting: int) -> int | None:
        return self._rng.randrange(waiting) if self._rng.random() < 0.03 else None

    def _again(self, kind: Fate, call: Call) -> bool:
        """Damage on the way strikes an object once: twice in a row would be damage for good, to all who look."""
        if kind not in {"flip", "short"}:
            return False
        again = (call.actor, call.key) in self._mangled
        self._mangled.add((call.actor, call.key))
        return again

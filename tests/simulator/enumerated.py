"""Short histories, all of them: death at every call and at every pair of calls, a sleep at every call while another attempt
runs, both asleep in turn, and every kind of trouble at every call (CrashMonkey's finding: short sequences find most faults,
https://www.usenix.org/conference/osdi18/presentation/mohan)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from simulator.histories import Outcome, play
from simulator.plan import TROUBLES, WRITES, Plan
from simulator.scheduler import Actor, Call, Fate

FOR_LONG = 10**6
Script = Mapping[tuple[str, int], Fate]
"""(actor, number of its call) -> what becomes of that call; all others go well."""

SHORT = Plan(
    seed=0,
    pods=1,
    restarts=0,
    readers=0,
    saves=2,
    keep=1,
    keep_every=None,
    tries=3,
    exact=True,
    recurring=False,
    probe=False,
    many_slots=64,
    troubles={},
    crash_after=0,
    burst=1.0,
    damage=0,
    honest=True,
    late_to_the_end=True,
)


@dataclass
class ScriptedDirector:
    """Everybody runs until they end or sleep; who sleeps goes on when nobody else can, the first asleep first."""

    script: Script
    late_after: int = 1
    """After how many decisions a late request takes effect."""

    calls: list[Call] = field(default_factory=list[Call])
    _waited: int = 0

    def choose(self, ready: list[Actor], *, last: Actor | None) -> Actor:
        return last if last is not None and last in ready else ready[0]

    def fate(self, call: Call) -> Fate | None:
        self.calls.append(call)
        return self.script.get((call.actor, call.number))

    def pause(self) -> int:
        return FOR_LONG

    def pick(self, number: int) -> int:
        return number // 2

    def deliver(self, waiting: int) -> int | None:
        self._waited += 1
        if self._waited < self.late_after:
            return None
        self._waited = 0
        return 0


@dataclass(frozen=True)
class Case:
    plan: Plan
    script: Script
    late_after: int = 1

    def play(self, *, trace: bool = False) -> Outcome:
        return play(self.plan, ScriptedDirector(self.script, self.late_after), trace=trace)


def calls_of(plan: Plan, script: Script, *, actor: str) -> list[Call]:
    """The calls of one process, where the script's fates befall it and the others."""
    director = ScriptedDirector(script)
    play(plan, director)
    return [call for call in director.calls if call.actor == actor]


def turning_points(calls: list[Call]) -> list[int]:
    """Deaths that leave different buckets: at the first call, and after each change."""
    after_changes = [call.number + 1 for call in calls if call.method in WRITES]
    return [0, *(number for number in after_changes if number < len(calls))]


def deaths() -> Iterator[Case]:
    for call in calls_of(SHORT, {}, actor="pod0.0"):
        yield Case(SHORT, {("pod0.0", call.number): "crash"})


def pairs_of_deaths() -> Iterator[Case]:
    """The second strikes the attempt that recovers from the first."""
    plan = replace(SHORT, restarts=1)
    for first in turning_points(calls_of(plan, {}, actor="pod0.0")):
        script: Script = {("pod0.0", first): "crash"}
        for second in turning_points(calls_of(plan, script, actor="pod0.1")):
            yield Case(plan, {**script, ("pod0.1", second): "crash"})


def sleeps() -> Iterator[Case]:
    """One attempt sleeps at each of its calls while another runs to its end, or dies, or sleeps in turn."""
    plan = replace(SHORT, pods=2)
    for asleep in calls_of(plan, {}, actor="pod0.0"):
        script: Script = {("pod0.0", asleep.number): "pause"}
        yield Case(plan, script)
        for second in turning_points(calls_of(plan, script, actor="pod1.0")):
            yield Case(plan, {**script, ("pod1.0", second): "pause"})
            yield Case(plan, {**script, ("pod1.0", second): "crash"})


def troubles() -> Iterator[Case]:
    """Each kind at each call that it can befall: cleared by the next try, or the last one; with a sleep right after it."""
    for call in calls_of(SHORT, {}, actor="pod0.0"):
        for kind in (kind for kind, methods in TROUBLES.items() if call.method in methods and kind != "pause"):
            here = ("pod0.0", call.number)
            for late_after in (1, 20, FOR_LONG) if kind in {"late", "twice"} else (1,):
                yield Case(SHORT, {here: kind}, late_after)
                yield Case(replace(SHORT, tries=1), {here: kind}, late_after)
                yield Case(replace(SHORT, pods=2), {here: kind, ("pod0.0", call.number + 1): "pause"}, late_after)


def damage() -> Iterator[Case]:
    """Objects damaged at some moment of a plain run, or of two: chosen by the seed."""
    for seed in range(150):
        yield Case(replace(SHORT, seed=seed, pods=1 + seed % 2, restarts=1, saves=3, keep=2, damage=1 + seed % 3), {})


KINDS = {
    "deaths": deaths,
    "pairs of deaths": pairs_of_deaths,
    "sleeps": sleeps,
    "troubles": troubles,
    "damage": damage,
}

"""One schedule, from its plan to the verdict: the actors' quarrel, then an attempt in good weather, which must end the run."""

import random
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdjob.ckpt import journal, prune
from sdjob.core.errors import UnsoundError
from simulator.actors import STEPS_A_SAVE, Attempt, World, pod, reader, uninterrupted
from simulator.bucket import Bucket
from simulator.checker import Checker
from simulator.plan import Plan, SeededDirector, drawn
from simulator.scheduler import Call, Director, Fate, Scheduler
from simulator.small_files import SHARED_MEMORY, folder_of_its_own

BATCH = 2  # blobs a batch of deletions, so that there are many looks at the log
EARLIEST_DAMAGE, LATEST_DAMAGE = 20, 500  # decisions


@dataclass
class Outcome:
    violations: list[str]
    states: set[int]
    """Of the bucket, that were seen on the way."""

    way: int
    """The same for two schedules in which the same calls met the same fates in the same order."""

    num_calls: int = 0
    trace: list[str] = field(default_factory=list[str])


class Sequential:
    """Several readers of a long log as one after the other, so that their calls can be interleaved with everybody else's."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> "Sequential":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[[int], object], numbers: range) -> Iterator[object]:
        return map(function, numbers)

    def shutdown(self, *, cancel_futures: bool) -> None: ...


@contextmanager
def settings(plan: Plan) -> Iterator[Path]:
    """Small figures instead of large ones, so that short histories reach what only long ones would; files in memory."""
    before = (prune.BATCH, journal.MANY_SLOTS, journal.ThreadPoolExecutor, tempfile.tempdir)
    prune.BATCH, journal.MANY_SLOTS, journal.ThreadPoolExecutor = BATCH, plan.many_slots, Sequential  # type: ignore[misc, assignment]
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    try:
        with folder_of_its_own(where) as folder:
            tempfile.tempdir = str(folder)
            yield folder
    finally:
        prune.BATCH, journal.MANY_SLOTS, journal.ThreadPoolExecutor, tempfile.tempdir = before  # type: ignore[misc]


def play_seed(seed: int, *, trace: bool = False) -> Outcome:
    plan = drawn(seed)
    return play(plan, SeededDirector(plan), trace=trace)


def play(plan: Plan, director: Director, *, trace: bool = False) -> Outcome:
    with settings(plan) as folder:
        return History(plan, director, folder, keep_trace=trace).play()


class History:
    def __init__(self, plan: Plan, director: Director, folder: Path, *, keep_trace: bool) -> None:
        self.plan = plan
        self.director = director
        self.checker = Checker(keep=plan.keep, dishonest=not plan.honest)
        self.bucket = Bucket(self.checker, honest=plan.honest)
        self.checker.watch(self.bucket)
        self.scheduler = Scheduler(director, on_decision=self._around)
        self.world = World(plan, self.scheduler, self.bucket, self.checker, folder, self._on_call)
        self.outcome = Outcome(self.checker.violations, self.checker.states, way=0)
        self._keep_trace = keep_trace
        self._damage = random.Random(plan.seed + 2)
        self._damage_at = {self._damage.randint(EARLIEST_DAMAGE, LATEST_DAMAGE) for _ in range(plan.damage)}

    def play(self) -> Outcome:
        for number in range(self.plan.pods):
            self.scheduler.spawn(f"pod{number}", lambda number=number: pod(self.world, number))
        for number in range(self.plan.readers):
            self.scheduler.spawn(f"reader{number}", lambda number=number: reader(self.world, number))
        try:
            self.scheduler.run()
            if not self.checker.violations:
                self._end_in_good_weather()
        except Exception as error:  # a schedule among a million: the others are still played, and this one is told by its seed
            *_, here = traceback.extract_tb(error.__traceback__)
            self.checker.fail("crash", f"{error!r} in {here.name}, {here.filename}:{here.lineno}")
        return self.outcome

    def _around(self) -> None:
        """Between two calls: requests under way arrive, objects are damaged, a violation ends it all."""
        self.scheduler.stopped = bool(self.checker.violations)
        late = self.bucket.late
        if late and (index := self.director.deliver(len(late))) is not None:
            self._say("a late request takes effect")
            late.pop(index)()
        if self.scheduler.decisions in self._damage_at:
            self._harm()

    def _harm(self) -> None:
        keys = [key for key, data in self.bucket.objects.items() if data and key.startswith(("log/", "blob/"))]
        if not keys:
            return
        key, how = self._damage.choice(keys), self._damage.choice(("flip", "empty", "delete", "swap"))
        if how == "delete" and key.startswith("log/"):
            how = "flip"  # a gap is another matter: nobody may go on (tests/unit/ckpt/test_damage.py)
        data = self.bucket.objects[key]
        self._say(f"{key} is damaged: {how}")
        self.checker.harmed(key)
        match how:
            case "flip":
                self.bucket.objects[key] = bytes([data[0] ^ 1]) + data[1:]
            case "empty":
                self.bucket.objects[key] = b""
            case "delete":
                del self.bucket.objects[key]
            case _:
                self.bucket.objects[key] = self.bucket.objects[self._damage.choice(keys)]

    def _end_in_good_weather(self) -> None:
        director = self.director
        if isinstance(director, SeededDirector):
            director.fair = True
        self._damage_at.clear()
        if not self.plan.late_to_the_end:
            while self.bucket.late:
                self.bucket.late.pop(0)()
        was_quiet = not self.bucket.late
        last = Attempt(self.world, "last")
        errors: list[Exception | None] = []
        scheduler = self.scheduler
        scheduler.actors.clear()
        scheduler.spawn("last", lambda: errors.append(last.run()))
        scheduler.run()
        while self.bucket.late:
            self.bucket.late.pop(0)()
        if not self.checker.violations:
            self._judge_the_end(errors[0], was_quiet=was_quiet)

    def _judge_the_end(self, error: Exception | None, *, was_quiet: bool) -> None:
        checker, truth, plan = self.checker, self.checker.truth_at_the_end(), self.plan
        if error is not None:
            if not (isinstance(error, UnsoundError) and (checker.damaged or not plan.honest)):
                checker.fail("end", f"the last attempt ends with {error!r}")
            return
        if plan.exact and truth.done_digest != uninterrupted(self.world.last_step, recurring=plan.recurring):
            checker.fail("end", f"the run ends with another state than an uninterrupted one: {truth.done_digest}")
        steps = [commit.step for commit in truth.live]
        if steps[-1:] != [self.world.last_step]:
            checker.fail("end", f"the run is done, and its live steps are {steps}")
        wrote = any(slot["kind"] == "claim" and slot["attempt"] == "last" for slot in truth.slots)
        if wrote and was_quiet and not checker.damaged:
            self._check_pruned(steps)

    def _check_pruned(self, steps: list[int]) -> None:
        named = {key for commit in self.checker.truth.live for key in commit.keys}
        there = {key for key in self.bucket.objects if key.startswith("blob/")}
        if named != there:
            self.checker.fail("pruned", f"left over: {sorted(there - named)}, missing: {sorted(named - there)}")
        every = self.plan.keep_every
        kept = {*steps[-self.plan.keep :], *(step for step in steps if every and step % (every * STEPS_A_SAVE) == 0)}
        if set(steps) != kept:
            self.checker.fail("pruned", f"keep {self.plan.keep}, keep_every {every}: the live steps are {steps}")

    def _on_call(self, call: Call, fate: Fate | None) -> None:
        if call.method == "delete":
            self.checker.deletes(call)
        outcome = self.outcome
        outcome.num_calls += 1
        outcome.way = hash((outcome.way, call.actor, call.number, fate))
        if self._keep_trace:
            self._say(f"{call.actor} #{call.number} {call.method} {call.key}{f'  -> {fate}' if fate else ''}")

    def _say(self, what: str) -> None:
        if self._keep_trace:
            self.outcome.trace.append(f"{self.scheduler.decisions:6d} {what}")

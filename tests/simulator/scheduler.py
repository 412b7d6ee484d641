"""One thread, many actors: each runs in a greenlet of its own and hands the baton on at every store call and every sleep.

The code under test runs unchanged: to it, a store call is a call. Between two calls nothing else runs, so all interleavings
that matter are interleavings of calls; which actor goes on is a `Director`'s choice, and a seed makes it the same again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from greenlet import getcurrent, greenlet

MOST_DECISIONS = 50_000  # far more than the longest schedule takes; past it something goes round in circles

Fate = Literal[
    "crash",  # the process dies before the call
    "pause",  # SIGSTOP: the others go on for long
    "busy",  # 503, 429, 409 or a refused connection: nothing happened
    "lost",  # it happened, and the reply was lost
    "late",  # a time-out, and the request takes effect some time later
    "twice",  # it happened, and happens again some time later
    "denied",  # 403
    "flip",  # a read with one bit turned on the way
    "short",  # a read that ends too early
    "stale",  # a listing as of some time ago
    "empty",  # a listing that is falsely empty
]


class Crash(BaseException):
    """The process dies here: no handler of errors may stop it, and it makes no further call."""


class Call(NamedTuple):
    """No frozen dataclass, since a million schedules make 140 million of these."""

    actor: str
    number: int
    """From 0, over all calls of one process."""

    method: str
    key: str


class Director(Protocol):
    """Decides all that the real world leaves open."""

    def choose(self, ready: "list[Actor]", *, last: "Actor | None") -> "Actor":
        """Who goes on, of at least one."""
        ...

    def fate(self, call: Call) -> Fate | None:
        """What becomes of a call; None: it goes well."""
        ...

    def pause(self) -> int:
        """For how many decisions a paused actor sleeps."""
        ...

    def pick(self, number: int) -> int:
        """Any of so many: an old listing, a byte, an order."""
        ...

    def deliver(self, waiting: int) -> int | None:
        """Which of the late requests takes effect now; None for none."""
        ...


class Actor:
    """One process; `crashed` once it is dead."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.crashed = False
        self.wake_s = 0.0
        self.paused_until = 0
        self.baton = greenlet(lambda: self._run(body))

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Crash:
            self.crashed = True


class Scheduler:
    """Virtual time passes only where an actor that sleeps is chosen: to the others it was merely slow, as anything may be."""

    def __init__(self, director: Director, *, on_decision: Callable[[], None] = lambda: None) -> None:
        self.director = director
        self.actors: list[Actor] = []
        self.now_s = 0.0
        self.decisions = 0
        self.stopped = False
        self.current: Actor | None = None
        self._alive: list[Actor] = []
        self._num_paused = 0
        self._on_decision = on_decision
        self._hub = getcurrent()

    def spawn(self, name: str, body: Callable[[], None]) -> Actor:
        actor = Actor(name, body)
        self.actors.append(actor)
        return actor

    def run(self) -> None:
        """Until every actor has ended; what an actor raises comes out here."""
        self._alive = list(self.actors)
        last: Actor | None = None
        try:
            while self._alive and not self.stopped:
                self._chosen(last).baton.switch()
                last = self._running  # an actor that has ended, or that found the schedule stopped
                if last.baton.dead:
                    self._alive.remove(last)
        finally:
            self.current = None
        self._bury()

    def yield_(self) -> None:
        """Hands the baton on, to whom is chosen, which may be the same actor; returns when this one is chosen again."""
        actor = self._running
        try:
            to = self._hub if self.stopped else self._chosen(actor).baton
        except BaseException as error:
            self._hub.throw(error)  # there, since the code under test could catch it here
            raise
        if to is not actor.baton:
            to.switch()

    def pause(self) -> None:
        self._running.paused_until = self.decisions + self.director.pause()
        self._num_paused += 1
        self.yield_()

    def sleep(self, seconds: float) -> None:
        self._running.wake_s = self.now_s + seconds
        self.yield_()

    @property
    def in_actor(self) -> bool:
        """Whether the caller is the actor itself: a thread that it started is not."""
        return self.current is not None and getcurrent() is self.current.baton

    @property
    def _running(self) -> Actor:
        assert self.current is not None
        return self.current

    def _chosen(self, last: Actor | None) -> Actor:
        """Who goes on now."""
        alive = self._alive
        self.decisions += 1
        if self.decisions > MOST_DECISIONS:
            raise AssertionError(f"the schedule does not end: {[actor.name for actor in alive]}")
        self._on_decision()
        ready = alive
        if self._num_paused:
            awake = [actor for actor in alive if actor.paused_until <= self.decisions]
            ready = awake or [min(alive, key=lambda actor: actor.paused_until)]
        actor = self.current = self.director.choose(ready, last=last)
        self.now_s = max(self.now_s, actor.wake_s)
        if actor.paused_until:
            actor.paused_until = 0
            self._num_paused -= 1
        return actor

    def _bury(self) -> None:
        """After a stop: the actors that are left die, so that their folders go."""
        for actor in self.actors:
            if actor.baton:  # has begun, and not ended
                actor.baton.throw(Crash)


@dataclass
class ActorClock:
    """One host's clock: it may be an hour wrong, and no decision may rest on that."""

    scheduler: Scheduler
    skew_s: float = 0.0

    def unix_s(self) -> float:
        return 1_700_000_000.0 + self.scheduler.now_s + self.skew_s

    def monotonic_s(self) -> float:
        return self.scheduler.now_s

    def sleep(self, seconds: float) -> None:
        self.scheduler.sleep(seconds)

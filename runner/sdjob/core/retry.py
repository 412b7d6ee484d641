"""Retries with exponential back-off and full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/)."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sdjob.core.clock import Clock, SystemClock

Result = TypeVar("Result")


@dataclass(frozen=True)
class Backoff:
    """Waits of random(0, min(cap_s, base_s * 2^n)) seconds between at most `attempts` tries."""

    attempts: int = 8
    base_s: float = 0.2
    cap_s: float = 20.0
    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)

    def wait(self, failures: int, *, at_least_s: float = 0.0) -> None:
        """`at_least_s`: what the other side asked for; the jitter comes on top, so that not all come back at once."""
        self.clock.sleep(at_least_s + self.rng.uniform(0.0, min(self.cap_s, self.base_s * 2**failures)))


def with_retries(action: Callable[[], Result], *, transient: tuple[type[Exception], ...], backoff: Backoff) -> Result:
    """The action's result; an error of a `transient` class is tried again, the last one raised as it is.

    An error may say in an attribute `retry_after_s` how long to wait at least.
    """
    for failures in range(backoff.attempts - 1):
        try:
            return action()
        except transient as error:
            backoff.wait(failures, at_least_s=getattr(error, "retry_after_s", None) or 0.0)
    return action()

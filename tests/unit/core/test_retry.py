"""Retries with exponential back-off and full jitter."""

import random

import pytest

from fakes.clock import FakeClock
from sdjob.core.retry import Backoff, with_retries


class BusyError(Exception):
    pass


class Flaky:
    def __init__(self, failures, error=BusyError):
        self.failures, self.calls, self.error = failures, 0, error

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(self.calls)
        return "answer"


def backoff(clock=None, **settings):
    return Backoff(clock=clock or FakeClock(), rng=random.Random(0), **settings)


def test_the_first_answer_costs_no_wait():
    clock = FakeClock()
    assert with_retries(Flaky(0), transient=(BusyError,), backoff=backoff(clock)) == "answer"
    assert clock.slept_s == []


def test_transient_errors_are_tried_again():
    clock, action = FakeClock(), Flaky(3)
    assert with_retries(action, transient=(BusyError,), backoff=backoff(clock, attempts=4)) == "answer"
    assert action.calls == 4
    assert len(clock.slept_s) == 3


def test_the_last_error_is_raised_as_it_is():
    clock, action = FakeClock(), Flaky(100)
    with pytest.raises(BusyError) as caught:
        with_retries(action, transient=(BusyError,), backoff=backoff(clock, attempts=4))
    assert caught.value.args == (4,)
    assert len(clock.slept_s) == 3, "no wait after the last"


def test_other_errors_are_raised_at_once():
    action = Flaky(1, error=KeyError)
    with pytest.raises(KeyError):
        with_retries(action, transient=(BusyError,), backoff=backoff())
    assert action.calls == 1


def test_waits_grow_up_to_the_cap_and_are_spread_from_zero():
    clock = FakeClock()
    many = backoff(clock, base_s=1.0, cap_s=8.0)
    longest = []
    for failures in range(6):
        clock.slept_s.clear()
        for _ in range(400):
            many.wait(failures)
        limit = min(8.0, 2.0**failures)
        assert max(clock.slept_s) <= limit
        assert max(clock.slept_s) > 0.95 * limit
        assert min(clock.slept_s) < 0.05 * limit
        longest.append(max(clock.slept_s))
    assert longest[:4] == sorted(longest[:4])

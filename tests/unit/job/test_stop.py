"""Stop requests: the first counts, a second signal ends the process, and a limit names itself."""

import os
import select
import signal

import pytest

from fakes.clock import FakeClock
from sdjob.core.errors import StoppedError, TimeSpentError
from sdjob.job.stop import StopRequest


class ExitedError(Exception):
    pass


@pytest.fixture
def stop(monkeypatch) -> StopRequest:
    def leave(code: int) -> None:
        raise ExitedError(code)

    monkeypatch.setattr(os, "_exit", leave)
    return StopRequest(FakeClock(), notice_s=10.0)


def test_nothing_is_asked_at_first(stop):
    assert not stop.requested
    assert stop.seconds_left() == float("inf")
    stop.check()
    stop.check_after(3)
    assert select.select([stop.wake_fd], [], [], 0) == ([], [], [])


def test_the_first_signal_asks_and_the_notice_runs_from_it(stop):
    stop._on_signal(signal.SIGTERM, None)
    stop.clock.advance(4.0)
    stop.request()
    assert stop.seconds_left() == 6.0
    assert select.select([stop.wake_fd], [], [], 0)[0] == [stop.wake_fd]
    with pytest.raises(StoppedError, match="step 3 is committed"):
        stop.check_after(3)


def test_a_second_signal_ends_the_process_at_once(stop):
    stop._on_signal(signal.SIGTERM, None)
    with pytest.raises(ExitedError, match="75"):
        stop._on_signal(signal.SIGINT, None)


def test_a_limit_that_asked_is_what_the_run_ends_with(stop):
    stop.request(cause=TimeSpentError("the hours are used up"))
    for check in (stop.check, lambda: stop.check_after(None)):
        with pytest.raises(TimeSpentError, match="used up"):
            check()


def test_a_signal_after_a_limit_is_the_first_one(stop):
    stop.request(cause=TimeSpentError("the hours are used up"))
    stop._on_signal(signal.SIGTERM, None)
    with pytest.raises(TimeSpentError):
        stop.check()
    with pytest.raises(ExitedError):
        stop._on_signal(signal.SIGTERM, None)


def test_a_limit_after_a_signal_changes_nothing(stop):
    stop._on_signal(signal.SIGTERM, None)
    stop.request(cause=TimeSpentError("the hours are used up"))
    with pytest.raises(StoppedError):
        stop.check()

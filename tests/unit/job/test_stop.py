"""Stop requests: one signal asks, a second one ends; what is left of the notice."""

import os
import select
import signal
import subprocess
import sys

import pytest

from fakes.clock import FakeClock
from sdjob.core.errors import StoppedError, TimeSpentError
from sdjob.job.stop import StopRequest

CHILD = """
import time
from sdjob.core.clock import SystemClock
from sdjob.job.stop import StopRequest
stop = StopRequest(SystemClock(), notice_s=600.0)
stop.install()
print("ready", flush=True)
while not stop.requested: time.sleep(0.01)
print("asked", flush=True)
while True: time.sleep(0.01)
"""


def made(notice_s=10.0):
    clock = FakeClock()
    return StopRequest(clock, notice_s=notice_s), clock


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_before_a_request_there_is_all_the_time():
    stop, clock = made()
    clock.advance(1e9)
    assert not stop.requested
    assert stop.seconds_left() == float("inf")
    assert not readable(stop.wake_fd)
    stop.check()
    stop.check_after(5)


def test_the_notice_runs_from_the_first_request():
    stop, clock = made(notice_s=10.0)
    clock.advance(100.0)
    stop.request()
    assert stop.requested
    assert readable(stop.wake_fd)
    clock.advance(4.0)
    stop.request()
    assert stop.seconds_left() == pytest.approx(6.0)
    clock.advance(7.0)
    assert stop.seconds_left() == pytest.approx(-1.0)


def test_the_end_says_how_far_the_attempt_came():
    stop, _ = made()
    stop.request()
    for check, words in [
        (stop.check, "stopped on request"),
        (lambda: stop.check_after(30), "step 30 is committed"),
        (lambda: stop.check_after(None), "no new step was committed"),
    ]:
        with pytest.raises(StoppedError, match=rf"{words}.*run the same command again") as caught:
            check()
        assert caught.value.exit_code == 75


def test_a_request_of_our_own_ends_with_its_own_error():
    stop, _ = made()
    stop.request(cause=TimeSpentError("the hours are used up"))
    for check in (stop.check, lambda: stop.check_after(None)):
        with pytest.raises(TimeSpentError, match="used up"):
            check()


def test_a_limit_after_a_signal_changes_nothing():
    stop, _ = made()
    stop._on_signal(signal.SIGTERM, None)
    stop.request(cause=TimeSpentError("the hours are used up"))
    with pytest.raises(StoppedError):
        stop.check()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_asks_and_a_second_one_ends_with_75(first, second):
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, first)
        assert child.stdout.readline() == "asked\n"
        assert child.poll() is None
        os.kill(child.pid, second)
        assert child.wait(60) == 75


def test_a_signal_after_a_request_of_our_own_asks_and_does_not_end(monkeypatch):
    """`max_hours` may have asked a moment before: the person's first Ctrl-C must still leave time for the save."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    stop, _ = made()
    stop.request(cause=TimeSpentError("the hours are used up"))
    stop._on_signal(signal.SIGINT, None)
    assert ended == []
    with pytest.raises(TimeSpentError):
        stop.check()
    stop._on_signal(signal.SIGINT, None)
    assert ended == [75]

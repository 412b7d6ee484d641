"""Which ends are worth another attempt, how long until it, and what a stop request does at each moment."""

import io
import json
import os
import signal
from collections.abc import Iterator

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from sdjob.core.errors import StoppedError, StorageError
from sdjob.core.log import Log
from sdjob.job import supervise
from sdjob.job.before import Before, before_here
from sdjob.job.stop import StopRequest
from sdjob.job.supervise import LONG_S, Supervisor, stalled, until_stopped
from sdjob.ledger.write import LedgerWriter
from unit.spec.jobs import job

FINAL = [0, 64, 65, 66, 69, 76, 77, 78, 79]
WORTH_ANOTHER = [1, 70, 71, 74, 75, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT]


class FakeProcess:
    """Ends by itself after so many seconds of being looked at, or by a signal with its code."""

    def __init__(self, bench, code, *, seconds=0.0, after_signal=None):
        self.bench, self.code, self.after_signal = bench, code, after_signal
        self.until_s = bench.clock.monotonic_s() + seconds
        self.signals = []

    def poll(self):
        return self.code if self.bench.clock.monotonic_s() >= self.until_s else None

    def send_signal(self, sig):
        self.signals.append(sig)
        self.code = self.after_signal

    def wait(self):
        return self.code


class Bench:
    def __init__(self, *attempts, restarts=5, stalled=False, stop_after_s=None):
        self.clock, self.out = FakeClock(), io.StringIO()
        self.stop = StopRequest(self.clock, notice_s=10.0)
        self.stop_after_s, self.started, self.told, self.pauses_s = stop_after_s, [], [], []
        self.attempts: Iterator = iter(attempts)
        self.supervisor = Supervisor(
            start=self.start,
            restarts=restarts,
            stop=self.stop,
            has_stalled=lambda: stalled,
            wait=self.wait,
            clock=self.clock,
            log=Log(mode="json", stream=self.out, clock=self.clock, secrets=()),
        )

    def start(self, before):
        self.told.append(before)
        attempt = next(self.attempts)
        self.started.append(FakeProcess(self, **attempt) if isinstance(attempt, dict) else FakeProcess(self, attempt))
        return self.started[-1]

    def wait(self, seconds):
        self.pauses_s.append(seconds)
        self.clock.advance(seconds)
        if self.stop_after_s is not None and self.clock.monotonic_s() >= self.stop_after_s:
            self.stop.request()

    @property
    def said(self):
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


@pytest.mark.parametrize("code", FINAL)
def test_what_another_attempt_would_only_repeat_is_the_end(code):
    bench = Bench(code)
    assert bench.supervisor.run() == code
    assert len(bench.started) == 1
    assert bench.said == []


@pytest.mark.parametrize("code", WORTH_ANOTHER)
def test_every_other_end_is_worth_another_attempt(code):
    bench = Bench(code, 0)
    assert bench.supervisor.run() == 0
    (told,) = bench.said
    assert (told["event"], told["exit_code"], told["restart"]) == ("restart", code if code > 0 else 128 - code, 1)


def test_after_n_restarts_the_last_code_stands():
    bench = Bench(70, 74, -9, restarts=2)
    assert bench.supervisor.run() == 137
    assert len(bench.started) == 3
    assert [told["event"] for told in bench.said] == ["restart", "restart", "restarts-used-up"]
    assert bench.said[-1]["message"] == "the attempt ended with exit code 137 (signal 9), and the 2 restart(s) are used up"


def test_each_attempt_is_told_how_the_one_before_ended():
    bench = Bench({"code": -9, "seconds": 3.0}, 0)
    bench.supervisor.run()
    (first, second), began_s = bench.told, FakeClock().unix_s()
    assert first is None
    assert second == Before(began_s, began_s + 3.0, 137)
    assert before_here(second.environment()) == {"before": {"began_s": began_s, "ended_s": began_s + 3.0, "exit_code": 137}}


@pytest.mark.parametrize("told", ["", "{", "[]", "null", '{"began_s": 1}', '{"began_s": "1", "ended_s": 2, "exit_code": 3}'])
def test_nonsense_of_the_attempt_before_is_not_believed(told):
    assert before_here({"SDJOB_BEFORE": told}) == {}


def test_a_loop_without_progress_ends_by_its_70():
    bench = Bench(70, stalled=True)
    assert bench.supervisor.run() == 70
    assert len(bench.started) == 1


def test_other_ends_do_not_ask_for_progress():
    bench = Bench(74, 0, stalled=True)
    assert bench.supervisor.run() == 0


def test_false_starts_wait_longer_and_longer():
    bench = Bench(*[74] * 9, 0, restarts=9)
    bench.supervisor.run()
    assert bench.pauses_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_after_a_long_attempt_the_wait_is_short_again():
    bench = Bench(74, 74, {"code": 74, "seconds": LONG_S}, 74, 0)
    bench.supervisor.run()
    assert [seconds for seconds in bench.pauses_s if seconds != supervise.WATCH_S] == [1, 2, 1, 1]


@pytest.mark.parametrize(("code", "told"), [(75, 75), (0, 0), (78, 78), (-9, 75), (70, 75)])
def test_a_stop_request_is_passed_on_once_and_nothing_starts_after_it(code, told):
    bench = Bench({"code": 0, "seconds": 1e9, "after_signal": code}, stop_after_s=3.0)
    assert bench.supervisor.run() == told
    assert bench.started[0].signals == [signal.SIGTERM]
    assert len(bench.started) == 1


def test_a_stop_request_between_two_attempts():
    bench = Bench(74, stop_after_s=0.5)
    with pytest.raises(StoppedError, match="between two attempts"):
        bench.supervisor.run()
    assert len(bench.started) == 1


def test_an_attempt_that_ended_by_the_stop_request_itself_is_not_started_again():
    """The terminal's Ctrl-C, or a node's shutdown, may reach both."""
    bench = Bench({"code": 75, "seconds": 0.5}, stop_after_s=0.5)
    assert bench.supervisor.run() == 75
    assert bench.started[0].signals == []


def test_a_wait_ends_with_a_stop_request():
    stop = StopRequest(FakeClock(), notice_s=1.0)
    os.write(stop._wake_write_fd, b"!")
    until_stopped(stop)(3600.0)


class TestStalled:
    def ask(self, monkeypatch, store):
        monkeypatch.setattr(supervise, "open_store", lambda place: store)
        return stalled(job())

    def fruitless(self, store, number):
        clock = FakeClock(unix_s=1e9 + 1e4 * number)
        ledger = LedgerWriter(store, attempt=number, clock=clock)
        ledger.event("start")
        clock.advance(700.0)
        ledger.event("end", exit_code=75)
        ledger.flush()

    def test_after_five_long_attempts_without_a_commit(self, monkeypatch):
        store = MemoryStore()
        for number in range(1, 5):
            self.fruitless(store, number)
        assert not self.ask(monkeypatch, store)
        self.fruitless(store, 5)
        assert self.ask(monkeypatch, store)

    def test_a_ledger_that_cannot_be_read_says_nothing(self, monkeypatch):
        def open_store(place):
            raise StorageError("the store does not answer.")

        monkeypatch.setattr(supervise, "open_store", open_store)
        assert not stalled(job())

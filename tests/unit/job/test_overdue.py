"""Who still waits when the notice is over does not wait any longer."""

import io
import json
import threading

import pytest

from fakes.clock import FakeClock
from fakes.running import HANG_S
from sdjob.core.errors import TimeSpentError
from sdjob.core.log import Log
from sdjob.job.overdue import MERCY_S, watch
from sdjob.job.stop import StopRequest

NOTICE_S = 10.0


class Ended(Exception):
    """In the place of the process's end."""


class StoppedClock(FakeClock):
    """A stop is asked for after some time."""

    def __init__(self, stop_after_s, *, cause):
        super().__init__()
        self.stop = StopRequest(self, notice_s=NOTICE_S)
        self.stop_after_s, self.cause = stop_after_s, cause

    def sleep(self, seconds):
        super().sleep(seconds)
        if self.monotonic_s() >= self.stop_after_s:
            self.stop.request(cause=self.cause)


@pytest.mark.parametrize(
    ("cause", "code", "words"),
    [
        (None, 75, "stopped on request; the notice ended"),
        (TimeSpentError("two hours are used up."), 79, "two hours are used up."),
    ],
)
def test_with_what_the_stop_was_for_once_the_notice_and_a_little_more_are_over(tmp_path, cause, code, words):
    clock, out, file = StoppedClock(3600.0, cause=cause), io.StringIO(), tmp_path / "termination-log"
    file.touch()
    log = Log(mode="json", stream=out, clock=clock, secrets=())

    def end(exit_code):
        assert exit_code == code
        raise Ended

    with pytest.raises(Ended):
        watch(clock.stop, clock=clock, environment={"SDJOB_TERMINATION_LOG": str(file)}, log=log, end=end)
    late_s = clock.monotonic_s() - 3600.0 - NOTICE_S - MERCY_S
    assert 0.0 <= late_s < 1.0
    (told,) = map(json.loads, out.getvalue().splitlines())
    assert (told["event"], told["exit_code"]) == ("error", code)
    assert told["message"].startswith(words)
    assert file.read_text() == told["message"]


@pytest.mark.parametrize("stands", [True, False], ids=["stands-still", "is-gone"])
def test_though_whoever_reads_its_words_is_not_there(stands):
    class Reader(io.StringIO):
        def write(self, text):
            if not stands:
                raise BrokenPipeError
            threading.Event().wait(HANG_S)

    clock, ended = StoppedClock(0.0, cause=None), []
    log = Log(mode="json", stream=Reader(), clock=clock, secrets=())
    watch(clock.stop, clock=clock, environment={}, log=log, end=ended.append)
    assert ended == [75]

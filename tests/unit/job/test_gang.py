"""A gang of real processes: small Python programs that speak the trainer's protocol."""

import os
import sys
import threading
from pathlib import Path

import pytest

from sdjob.core.clock import SystemClock
from sdjob.core.errors import DataError, PeerLostError, SdjobError, StoppedError, TimeSpentError, UnsoundError, UsageError
from sdjob.job.gang import Gang, failure_of
from sdjob.job.launch import Command
from sdjob.job.stop import StopRequest

PRELUDE = """
import os, signal, sys, time
from sdjob.core.channel import inherited_channel
channel = inherited_channel()
task = channel.receive_one()
def say(event, **fields): channel.send({"event": event, **fields})
def hear():
    for message in channel: return message["event"]
"""
TASK = {"event": "task", "file": "/scratch/task.json", "environment": {}}
READY = "say('ready')\n"
FOREVER = "while True: time.sleep(60)\n"

COLLECTIVE = (0, {"exit_code": 70, "what": "connection closed by peer"})
LOST = (0, {"exit_code": 71, "what": "a host is gone"})
KILLED = (1, {"exit_code": -9})
DIVERGED = (1, {"exit_code": 78, "what": "loss nan"})
SILENT = (1, {"exit_code": 3})


def command(program, **environment):
    return Command((sys.executable, "-c", PRELUDE + program), {**os.environ, **environment}, TASK)


class Watched:
    """A gang whose messages are kept; `on` reacts to the first of a kind."""

    def __init__(self, *, notice_s=600.0):
        self.stop = StopRequest(SystemClock(), notice_s=notice_s)
        self.messages = []
        self.on = {}
        self.gang = Gang(self.stop, SystemClock(), on_message=self._on_message, watch=self._watch)
        self.failure = None

    def _on_message(self, message):
        self.messages.append(message)
        if action := self.on.pop(message["event"], None):
            action()

    def _watch(self):
        if self.failure:
            raise self.failure

    def run(self, *programs):
        try:
            return self.gang.run([command(program) for program in programs])
        finally:
            for child in self.gang.children:
                assert child.exit_code is not None, "no child survives its gang"
                assert not Path(f"/proc/{child.process.pid}").exists(), "nor is it left as a zombie"

    @property
    def events(self):
        return [message["event"] for message in self.messages]


@pytest.mark.parametrize("ending", ["finished", "stopped"])
def test_the_ending_is_what_the_trainer_said(ending):
    watched = Watched()
    assert watched.run(READY + f"say('metrics', step=1)\nsay('{ending}')") == ending
    assert watched.events == ["ready", "metrics", ending]
    assert watched.messages[1] == {"event": "metrics", "step": 1}


def test_only_rank_0_reports():
    watched = Watched()
    program = READY + "say('metrics', rank=int(os.environ.get('RANK', 0)))\nsay('finished')"
    commands = [command(program, RANK=str(rank)) for rank in range(3)]
    assert watched.gang.run(commands) == "finished"
    assert [m["rank"] for m in watched.messages if m["event"] == "metrics"] == [0]


def test_each_is_told_its_task():
    watched = Watched()
    assert watched.run("say('heard', task=task)\nsay('finished')") == "finished"
    assert watched.messages[0] == {"event": "heard", "task": TASK}


def test_a_failure_comes_with_its_code_and_words():
    with pytest.raises(DataError, match="picture 7 is torn"):
        Watched().run(READY + "say('failed', exit_code=65, what='picture 7 is torn')\nsys.exit(65)")


def test_words_count_though_the_exit_code_is_lost():
    with pytest.raises(UsageError, match="no such field"):
        Watched().run("say('failed', exit_code=64, what='no such field')\nos._exit(1)")


def test_silence_with_a_code():
    with pytest.raises(SdjobError, match="trainer process 0 ended with exit code 3 and no word") as caught:
        Watched().run(READY + "sys.exit(3)")
    assert caught.value.exit_code == 70


def test_a_killed_process_is_told_by_its_signal():
    with pytest.raises(SdjobError, match=r"trainer process 0 was ended by signal 9: perhaps .* out of memory") as caught:
        Watched().run(READY + "os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.exit_code == 70


class TestPeers:
    """A peer that waits in a collective fails after the culprit, or hangs; the culprit's cause is what is raised."""

    PEER = READY + "time.sleep({wait})\nsay('failed', exit_code=70, what='RuntimeError: connection closed by peer')\nsys.exit(70)"

    @pytest.mark.parametrize("culprit_rank", [0, 1])
    def test_the_one_with_another_code_is_the_culprit(self, culprit_rank):
        culprit = "time.sleep(0.3)\nsay('failed', exit_code=65, what='a torn picture')\nsys.exit(65)"
        programs = [self.PEER.format(wait=0), self.PEER.format(wait=0)]
        programs[culprit_rank] = culprit
        with pytest.raises(DataError, match="a torn picture"):
            Watched().run(*programs)

    @pytest.mark.parametrize("culprit_rank", [0, 1])
    @pytest.mark.parametrize("wait", [0.0, 0.5])
    def test_a_killed_one_is_the_culprit_whoever_is_heard_first(self, culprit_rank, wait):
        programs = [self.PEER.format(wait=wait), self.PEER.format(wait=wait)]
        programs[culprit_rank] = READY + "time.sleep(0.3)\nos.kill(os.getpid(), signal.SIGKILL)"
        with pytest.raises(SdjobError, match=f"trainer process {culprit_rank} was ended by signal 9"):
            Watched().run(*programs)

    def test_a_peer_that_hangs_is_ended(self, monkeypatch):
        monkeypatch.setattr("sdjob.job.gang.LAST_WORDS_S", 0.2)
        with pytest.raises(DataError, match="a torn picture"):
            Watched().run(READY + FOREVER, "say('failed', exit_code=65, what='a torn picture')\nsys.exit(65)")

    def test_a_killed_trainer_ends_those_that_wait_for_it(self, monkeypatch):
        monkeypatch.setattr("sdjob.job.gang.LAST_WORDS_S", 0.2)
        with pytest.raises(SdjobError, match="trainer process 0 was ended by signal 9"):
            Watched().run(READY + "os.kill(os.getpid(), signal.SIGKILL)", "hear()")

    @pytest.mark.parametrize(
        ("failures", "kind", "words"),
        [
            ([COLLECTIVE, DIVERGED], UnsoundError, "loss nan"),
            ([COLLECTIVE, KILLED], SdjobError, "ended by signal 9"),
            ([KILLED, DIVERGED], UnsoundError, "loss nan"),
            ([LOST, KILLED], SdjobError, "ended by signal 9"),
            ([LOST, DIVERGED], UnsoundError, "loss nan"),
            ([LOST, COLLECTIVE], SdjobError, "connection closed"),
            ([LOST, SILENT], PeerLostError, "a host is gone"),
            ([SILENT, COLLECTIVE], SdjobError, "connection closed"),
            ([SILENT], SdjobError, "exit code 3 and no word"),
        ],
    )
    def test_the_cause_is_found_among_what_the_processes_say(self, failures, kind, words):
        error = failure_of(failures)
        assert type(error) is kind
        assert words in str(error)

    def test_a_watchdogs_abort_is_not_the_cause(self):
        failures = [(0, {"exit_code": 70, "what": "a bug"}), (0, {"exit_code": 70}), (1, {"exit_code": -6})]
        assert str(failure_of(failures)) == "a bug"
        assert str(failure_of(failures[::-1])) == "a bug"

    def test_an_abort_alone_is(self):
        assert "process 1 was ended by signal 6" in str(failure_of([(1, {"exit_code": -6})]))


class TestStop:
    def test_before_the_first_step_nothing_is_waited_for(self):
        watched = Watched()
        watched.on["starting"] = watched.stop.request
        with pytest.raises(StoppedError):
            watched.run("say('starting')\n" + FOREVER)

    def test_a_limit_before_the_first_step_ends_with_its_own_error(self):
        watched = Watched()
        watched.stop.request(cause=TimeSpentError("used up"))
        with pytest.raises(TimeSpentError):
            watched.run("hear()")

    def test_it_wakes_nobody_any_more_once_it_is_passed_on(self):
        watched, wakes = Watched(), {}

        def look(event):
            wakes[event] = watched.stop.wake_fd in watched.gang._selector.get_map()

        def ask():
            look("ready")
            watched.stop.request()

        watched.on = {"ready": ask, "stopped": lambda: look("stopped")}
        assert watched.run(READY + "hear()\nsay('stopped')") == "stopped"
        assert wakes == {"ready": True, "stopped": False}

    def test_it_reaches_every_process_once(self):
        watched = Watched()
        watched.on["ready"] = watched.stop.request
        program = READY + "assert hear() == 'stop'\nsay('heard')\nsay('stopped')"
        assert watched.run(program, "assert hear() == 'stop'", "assert hear() == 'stop'") == "stopped"
        assert watched.events == ["ready", "heard", "stopped"]

    def test_a_finish_after_a_stop_is_a_finish(self):
        watched = Watched()
        watched.on["ready"] = watched.stop.request
        assert watched.run(READY + "hear()\nsay('finished')") == "finished"

    def test_when_the_notice_is_over_all_are_ended(self):
        watched = Watched(notice_s=0.3)
        watched.on["ready"] = watched.stop.request
        with pytest.raises(StoppedError, match="the notice ended before the step did"):
            watched.run(READY + FOREVER, FOREVER)

    def test_the_wait_for_the_last_step_costs_no_processor(self):
        """A stop request stays readable; a selector that minds would spin beside the step that it waits for."""
        watched = Watched()
        watched.on["ready"] = watched.stop.request
        turns = []
        watched.gang.watch = lambda: turns.append(1)
        watched.run(READY + "hear()\ntime.sleep(0.5)\nsay('stopped')")
        assert len(turns) < 20


def test_what_the_watch_raises_ends_the_gang():
    watched = Watched()

    def fail():
        watched.failure = DataError("from another thread")
        watched.gang.wake()

    watched.on["ready"] = lambda: threading.Thread(target=fail).start()
    with pytest.raises(DataError, match="from another thread"):
        watched.run(READY + FOREVER, FOREVER)


def test_the_parent_speaks_to_rank_0():
    watched = Watched()
    watched.on["ready"] = lambda: watched.gang.tell_main({"event": "save-over", "step": 3})
    assert watched.run(READY + "assert hear() == 'save-over'\nsay('finished')") == "finished"

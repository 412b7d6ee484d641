"""The gang with real processes that speak as a trainer does, and nothing of its weight."""

import os
import sys
from collections.abc import Callable

import pytest

from sdjob.core.clock import SystemClock
from sdjob.core.errors import DataError, SdjobError, StoppedError, TimeSpentError, UnsoundError
from sdjob.job.gang import Gang, failure_of
from sdjob.job.launch import Command
from sdjob.job.stop import StopRequest

SPEAK = "from sdjob.core.channel import inherited_channel; import os, signal, sys; channel = inherited_channel(); "
TRAIN_UNTIL_STOPPED = SPEAK + "channel.send({'event': 'ready'}); channel.receive(); channel.send({'event': 'stopped'})"


def gang_of(
    *scripts: str, stop: StopRequest | None = None, on_message: Callable[[Gang, str], None] = lambda gang, event: None
) -> tuple[Gang, list[Command]]:
    stop = stop or StopRequest(SystemClock(), notice_s=60.0)
    gang = Gang(stop, SystemClock(), on_message=lambda message: on_message(gang, message["event"]), watch=lambda: None)
    return gang, [Command((sys.executable, "-c", script), dict(os.environ)) for script in scripts]


def check_all_gone(gang: Gang) -> None:
    assert all(child.exit_code is not None for child in gang.children)


def test_a_stop_request_is_passed_on_and_wakes_nobody_any_more():
    wakes: dict[str, bool] = {}

    def on_message(gang: Gang, event: str) -> None:
        wakes[event] = gang.stop.wake_fd in gang._selector.get_map()
        if event == "ready":
            gang.stop.request()

    gang, commands = gang_of(TRAIN_UNTIL_STOPPED, on_message=on_message)
    assert gang.run(commands) == "stopped"
    assert wakes == {"ready": True, "stopped": False}
    check_all_gone(gang)


def test_a_stop_before_training_does_not_wait_for_it():
    gang, commands = gang_of(SPEAK + "channel.receive()")
    gang.stop.request()
    with pytest.raises(StoppedError):
        gang.run(commands)
    check_all_gone(gang)


def test_a_limit_before_training_ends_with_its_own_error():
    gang, commands = gang_of(SPEAK + "channel.receive()")
    gang.stop.request(cause=TimeSpentError("used up"))
    with pytest.raises(TimeSpentError):
        gang.run(commands)
    check_all_gone(gang)


def test_an_error_that_a_trainer_names_is_raised():
    failed = "channel.send({'event': 'failed', 'exit_code': 65, 'what': 'a bad picture'}); sys.exit(65)"
    gang, commands = gang_of(SPEAK + failed)
    with pytest.raises(DataError, match="a bad picture"):
        gang.run(commands)


def test_a_killed_trainer_ends_those_that_wait_for_it():
    gang, commands = gang_of(SPEAK + "os.kill(os.getpid(), signal.SIGKILL)", SPEAK + "channel.receive()")
    with pytest.raises(SdjobError, match="trainer process 0 was ended by signal 9"):
        gang.run(commands)
    check_all_gone(gang)


COLLECTIVE = (0, {"exit_code": 70, "what": "connection closed by peer"})
KILLED = (1, {"exit_code": -9})
DIVERGED = (1, {"exit_code": 78, "what": "loss nan"})
SILENT = (1, {"exit_code": 3})


@pytest.mark.parametrize(
    ("failures", "kind", "words"),
    [
        ([COLLECTIVE, DIVERGED], UnsoundError, "loss nan"),
        ([COLLECTIVE, KILLED], SdjobError, "ended by signal 9"),
        ([KILLED, DIVERGED], UnsoundError, "loss nan"),
        ([SILENT, COLLECTIVE], SdjobError, "connection closed"),
        ([SILENT], SdjobError, "exit code 3 and no word"),
    ],
)
def test_the_cause_is_found_among_what_the_processes_say(failures, kind, words):
    error = failure_of(failures)
    assert type(error) is kind
    assert words in str(error)

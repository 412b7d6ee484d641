"""Processes that wait for a task: small Python programs that wait as the trainers do."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from fakes.running import wait_until
from sdjob.core.clock import SystemClock
from sdjob.core.errors import SdjobError
from sdjob.job import standby as standbys
from sdjob.job.gang import Gang
from sdjob.job.launch import Command, GangShape, early_commands, trainer_commands
from sdjob.job.standby import Standby
from sdjob.job.stop import StopRequest

SHAPE = GangShape(backend="torch", num_processes=2, devices=1, device="cpu", threads=1, deterministic=True, port=0)
# Says which task it was given, and as which process.
WAITER = """
import os, sys
from sdjob.core.channel import inherited_channel
from sdjob.link import awaited_task
channel = inherited_channel()
channel.send({"event": "imported"})
file = awaited_task(channel)
if file is None:
    sys.exit(70)
rank, world, threads = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS"))
channel.send({"event": "shard", "file": str(file), "rank": rank, "of": world, "threads": threads, "pid": os.getpid()})
channel.send({"event": "finished"})
"""


@pytest.fixture(autouse=True)
def waiters(monkeypatch):
    """In the trainers' place."""

    def early(*, shape, environment):
        made = early_commands(shape=shape, environment=environment)
        return [Command((sys.executable, "-c", WAITER), command.environment) for command in made]

    monkeypatch.setattr(standbys, "early_commands", early)


@pytest.fixture
def standby():
    with Standby() as standby:
        yield standby


def pids(standby):
    return [child.process.pid for _, child in standby._waiting]


def train(standby, shape):
    """What the processes said of themselves."""
    made = trainer_commands(Path("/scratch/task.json"), shape=shape, environment=standby.environment)
    commands = [Command((sys.executable, "-c", WAITER), command.environment, command.task) for command in made]
    heard = []
    stop = StopRequest(SystemClock(), notice_s=600.0)
    gang = Gang(stop, SystemClock(), on_message=heard.append, watch=lambda: None, begin=standby.take)
    assert gang.run(commands) == "finished"
    return [message for message in heard if message["event"] == "shard"]


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


def test_those_that_wait_are_given_the_task_and_their_places(standby, monkeypatch):
    standby.begin(SHAPE)
    waiting = pids(standby)
    monkeypatch.setenv("SOME_LIBRARY", "wrote this later")
    told = train(standby, GangShape(**{**vars(SHAPE), "port": 1234}))
    assert sorted(process["pid"] for process in told) == sorted(waiting)
    assert sorted(process["rank"] for process in told) == ["0", "1"]
    assert {(process["file"], process["of"]) for process in told} == {("/scratch/task.json", "2")}
    assert not pids(standby)


def test_where_something_turned_out_otherwise_others_are_started(standby):
    standby.begin(SHAPE)
    waiting = pids(standby)
    told = train(standby, GangShape(**{**vars(SHAPE), "threads": 3}))
    assert {process["threads"] for process in told} == {"3"}
    assert not {process["pid"] for process in told} & {*waiting}
    assert all(map(gone, waiting)), "nor is one left as a zombie"


def test_more_than_wait_are_started_and_what_is_left_over_ends(standby):
    standby.begin(SHAPE)
    waiting = pids(standby)
    alone = GangShape(**{**vars(SHAPE), "num_processes": 1})
    assert [process["pid"] for process in train(standby, alone)] == waiting[:1]
    assert pids(standby) == waiting[1:]
    assert len(train(standby, SHAPE)) == 2
    standby.end()
    assert all(map(gone, waiting))


def test_what_fails_meanwhile_ends_them():
    waiting = []

    def prepare():
        with Standby() as standby:
            standby.begin(SHAPE)
            waiting.extend(pids(standby))
            raise SdjobError("the model is not there")

    with pytest.raises(SdjobError, match="the model is not there"):
        prepare()
    assert len(waiting) == 2
    assert all(map(gone, waiting))


def test_one_that_died_while_it_waited_is_told_as_any_trainer(standby):
    standby.begin(GangShape(**{**vars(SHAPE), "num_processes": 1}))
    [pid] = pids(standby)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", what="its end")
    with pytest.raises(SdjobError, match="trainer process 0 was ended by signal 9"):
        train(standby, GangShape(**{**vars(SHAPE), "num_processes": 1}))


def test_one_whose_parent_is_gone_ends(standby):
    """Where the kernel tells it nothing: by the end of its channel."""
    standby.begin(GangShape(**{**vars(SHAPE), "num_processes": 1}))
    [(_, child)] = standby._waiting
    assert json.dumps(child.channel.receive()) == '[{"event": "imported"}]'
    child.channel.close()
    assert child.process.wait() == 70
    standby._waiting.clear()

"""Nodes find each other over real sockets; nobody else gets in."""

import io
import json
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from sdjob.core.clock import SystemClock
from sdjob.core.errors import PeerLostError, StoppedError, UnavailableError, UsageError
from sdjob.core.log import Log
from sdjob.job.nodes.enlistment import Enlistment
from sdjob.job.nodes.greeting import hello, job_key, refused
from sdjob.job.nodes.interface import free_port
from sdjob.job.nodes.node import Node
from sdjob.job.nodes.rollcall import RollCall
from sdjob.job.nodes.wire import LONGEST_LINE, GarbageError, Wire, parsed
from unit.spec.jobs import job

KEY = "a" * 64


def quiet():
    return Log(mode="json", stream=io.StringIO(), secrets=())


def gang(count, *, wait_s=30.0):
    port = free_port()
    return [Node(number, count, "127.0.0.1", port, wait_s, 0.0) for number in range(count)]


@contextmanager
def door(node, *, key=KEY):
    call = RollCall(node, key, SystemClock(), quiet())
    call.open()
    try:
        yield call
    finally:
        if not call._closing:
            call.dismiss(exit_code=70, what="the test is over")
        for wire in call.present.values():
            wire.close()


def goes_on():
    pass


class Joining(threading.Thread):
    def __init__(self, node, *, key=KEY, check_stop=goes_on):
        super().__init__()
        self.enlistment = Enlistment(node, key, SystemClock(), quiet(), check_stop)
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self.enlistment.join()
        except Exception as error:
            self.outcome = error

    @property
    def result(self):
        self.join(60)
        return self.outcome

    def close(self):
        self.result[0].close()


def strangers_in(call):
    return [json.loads(line)["message"] for line in call.log.stream.getvalue().splitlines() if '"stranger"' in line]


def reply_to(node, data):
    """What comes back on a connection that says this, to its end."""
    with socket.create_connection((node.host, node.port), timeout=30) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as lines:
            return lines.read()


def test_three_nodes_meet():
    first, *others = gang(3)
    with door(first) as call:
        joining = [Joining(node) for node in others]
        wires = call.gather(check_stop=goes_on)
        assert sorted(wires) == [1, 2]
        assert [thread.result[1] for thread in joining] == [{"event": "welcome"}] * 2
        wires[2].send({"event": "for the second"})
        assert joining[1].result[0].receive() == [{"event": "for the second"}], "what follows the welcome is not lost"
        for thread in joining:
            thread.close()


def test_a_node_that_comes_first_waits_for_the_door():
    first, second = gang(2)
    joining = Joining(second)
    with door(first) as call:
        assert list(call.gather(check_stop=goes_on)) == [1]
        joining.close()


def test_a_node_that_never_comes_is_named():
    first, *_ = gang(3, wait_s=0.3)
    with door(first) as call, pytest.raises(PeerLostError, match=r"nodes 1, 2 did not come within 0.3 s") as caught:
        call.gather(check_stop=goes_on)
    assert caught.value.where == first.address
    assert "SDJOB_GANG_NODE=1" in (caught.value.next_step or "")


def test_a_first_node_that_never_answers_is_named():
    _, second = gang(2, wait_s=0.3)
    outcome = Joining(second).result
    assert isinstance(outcome, PeerLostError)
    assert "no node 0 answered within 0.3 s (Connection refused)" in outcome.what
    assert outcome.where == second.address


def stopping():
    raise StoppedError("stopped on request")


def test_a_stop_ends_the_wait_on_either_side():
    first, second = gang(2)
    assert isinstance(Joining(second, check_stop=stopping).result, StoppedError)
    with door(first) as call, pytest.raises(StoppedError):
        call.gather(check_stop=stopping)


def test_node_0_tells_those_who_wait_why_it_will_not_train():
    first, second = gang(2)
    with door(first) as call:
        joining = Joining(second)
        with call._changed:
            call._changed.wait_for(lambda: call.present, timeout=30)
        call.dismiss(exit_code=65, what="the data is torn")
    assert joining.result[1] == {"event": "end", "exit_code": 65, "what": "the data is torn"}
    joining.close()


def test_a_node_that_left_while_others_were_awaited_is_awaited_again():
    first, second, third = gang(3)
    with door(first) as call:
        reply_to_greeting = Wire(socket.create_connection((first.host, first.port)))
        reply_to_greeting.send(hello(second, key=KEY))
        with call._changed:
            assert call._changed.wait_for(lambda: call.present, timeout=30)
        reply_to_greeting.close()
        others = [Joining(third), Joining(second)]
        assert sorted(call.gather(check_stop=goes_on)) == [1, 2]
        assert [thread.result[1]["event"] for thread in others] == ["welcome"] * 2
        for thread in others:
            thread.close()


def test_of_two_with_one_number_the_first_is_sent_away():
    """It may be a machine that vanished without a word; the later one is surely there."""
    first, second, third = gang(3)
    with door(first) as call:
        early = Joining(second)
        with call._changed:
            assert call._changed.wait_for(lambda: call.present, timeout=30)
        late = Joining(second)
        assert isinstance(early.result, UsageError)
        assert "another process came as node 1" in early.result.what
        last = Joining(third)
        call.gather(check_stop=goes_on)
        assert late.result[1]["event"] == "welcome"
        for thread in (late, last):
            thread.close()


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"count": 3}, KEY, "node 0 counts 2 nodes, and node 1 counts 3"),
        ({"number": 2, "count": 2}, KEY, "there is no node 2"),
        ({"number": 0}, KEY, "there is no node 0"),
        ({}, "b" * 64, "was given another job than node 0"),
    ],
)
def test_whoever_belongs_to_another_gang_is_refused_with_the_reason(change, key, words):
    first, second = gang(2)
    with door(first) as call:
        outcome = Joining(replace(second, **change), key=key).result
        assert isinstance(outcome, UsageError)
        assert words in outcome.what
        right = Joining(second)
        assert list(call.gather(check_stop=goes_on)) == [1]
        right.close()
        (stranger,) = strangers_in(call)
        assert words in stranger


def test_another_version_is_refused():
    first, second = gang(2)
    words = refused({**hello(second, key=KEY), "sdjob": "0.0.1"}, node=first, key=KEY)
    assert words is not None
    assert "and node 1 is 0.0.1: all need the same version" in words


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x80\x04\x95\n",
        b"[1]\n",
        b"{}\n",
        b'{"event": "hello"}\n',
        b'{"event": "hello", "node": true, "nodes": 2}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (2 * LONGEST_LINE),
    ],
    ids=["http", "pickle", "a-list", "no-event", "no-node", "no-number", "deep", "long"],
)
def test_garbage_at_the_door_disturbs_nobody(data):
    first, second = gang(2)
    with door(first) as call:
        with suppress(ConnectionError):  # it may be cut off while it speaks
            assert b'"present"' not in reply_to(first, data)
        right = Joining(second)
        assert list(call.gather(check_stop=goes_on)) == [1]
        assert right.result[1]["event"] == "welcome"
        right.close()
        assert len(strangers_in(call)) == 1


def test_whoever_says_nothing_is_sent_away(monkeypatch):
    monkeypatch.setattr("sdjob.job.nodes.rollcall.ANSWER_S", 0.0)
    first, _ = gang(2)
    with door(first) as call:
        assert reply_to(first, b"") == b""
        assert "said nothing" in strangers_in(call)[0]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"event": "hello"}\n'])
def test_another_service_at_the_address_is_no_node_0(monkeypatch, answer):
    monkeypatch.setattr("sdjob.job.nodes.enlistment.ANSWER_S", 0.5)
    _, second = gang(2, wait_s=0.4)
    with socket.create_server((second.host, second.port)) as service:
        joining = Joining(second)
        connection, _ = service.accept()
        with connection:
            connection.sendall(answer)
            outcome = joining.result
    assert isinstance(outcome, PeerLostError)
    assert "what answers there is no sdjob" in outcome.what


def test_a_port_that_is_taken_is_told_at_once():
    first, _ = gang(2)
    with door(first), pytest.raises(UnavailableError, match=f"cannot listen at port {first.port}: Address already in use"):
        RollCall(first, KEY, SystemClock(), quiet()).open()


@pytest.mark.parametrize("line", [b"", b"null", b"\xff", b'{"event": 1}', b"1" * 5000])
def test_what_is_no_message(line):
    with pytest.raises(GarbageError):
        parsed(line)


class TestKey:
    def test_where_a_nodes_files_lie_is_its_own_affair(self):
        here = job("model.source=/models/a", "data.source=/data", "checkpoint.to=/mnt/run", "run.scratch=/scratch")
        there = job("model.source=/b", "data.source=/c", "checkpoint.to=/srv/run", "publish=[{to: /out}]", "track=[tensorboard]")
        assert job_key(here) == job_key(there)

    @pytest.mark.parametrize(
        "override", ["train.seed=1", "train.steps=9", "name=other", "run.accelerator='cpu:2'", "checkpoint.every_steps=3"]
    )
    def test_what_they_train_is_not(self, override):
        assert job_key(job()) != job_key(job(override))

"""What nodes tell each other while they train, over real sockets: stops, ends, and the silence of one that is gone."""

import socket
import time
from contextlib import ExitStack

import pytest

from fakes.clock import FakeClock
from sdjob.core.clock import SystemClock
from sdjob.core.errors import DataError, PeerLostError, SdjobError, StoppedError, TimeSpentError
from sdjob.job.launch import GangShape
from sdjob.job.nodes.interface import interface_of, ipv4_of
from sdjob.job.nodes.node import Node
from sdjob.job.nodes.peers import Peers, nobody
from sdjob.job.nodes.start import Start
from sdjob.job.nodes.wire import Wire
from sdjob.job.stop import StopRequest

HANG_S = 60.0
ALONE = GangShape(backend="torch", num_processes=2, devices=1, device="cpu", threads=1, deterministic=True, port=0)


class Nodes:
    """Node 0 and its followers in one process."""

    def __init__(self, count, stack):
        self.first = self._peers(0, count, wires := {})
        self.others = []
        for number in range(1, count):
            ours, theirs = connected()
            wires[number] = Wire(ours)
            self.others.append(self._peers(number, count, {0: Wire(theirs)}))
        for peers in self.all:
            peers.start()
            stack.callback(peers.leave)

    @property
    def all(self):
        return [self.first, *self.others]

    @staticmethod
    def _peers(number, count, wires):
        clock = SystemClock()
        return Peers(Node(number, count, grace_s=0.0), wires, StopRequest(clock, notice_s=600.0), clock)


def connected():
    with socket.create_server(("127.0.0.1", 0)) as door:
        ours = socket.create_connection(door.getsockname())
        return ours, door.accept()[0]


@pytest.fixture
def stack(monkeypatch):
    monkeypatch.setattr("sdjob.job.nodes.peers.HEAR_S", 0.5)
    with ExitStack() as stack:
        yield stack


def until(condition):
    deadline_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def loss_of(peers):
    """What its check raises, once it knows."""
    until(lambda: peers._loss is not None)
    with pytest.raises(SdjobError) as caught:
        peers.check()
    return caught.value


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_stop_request_to_any_node_reaches_all(stack, asked):
    nodes = Nodes(3, stack)
    nodes.all[asked].stop.request()
    until(lambda: all(peers.stop.requested for peers in nodes.all))
    assert all(peers.stop.cause is None for peers in nodes.all)


def test_used_up_hours_are_the_reason_everywhere(stack):
    nodes = Nodes(2, stack)
    nodes.first.stop.request(cause=TimeSpentError("run.max_hours is used up"))
    until(lambda: nodes.others[0].stop.requested)
    ending = nodes.others[0].stop.ending("one step was under way")
    assert isinstance(ending, TimeSpentError)
    assert "run.max_hours is used up" in str(ending)


def test_a_node_that_is_gone_is_told_to_all(stack):
    nodes = Nodes(3, stack)
    woken = []
    nodes.first.on_loss = lambda: woken.append(1)
    nodes.others[1].wires[0]._connection.shutdown(socket.SHUT_RDWR)
    for peers in (nodes.first, nodes.others[0]):
        error = loss_of(peers)
        assert isinstance(error, PeerLostError)
        assert "node 2 is gone without a word" in str(error)
    assert woken


def test_a_node_that_failed_is_named_with_its_words(stack):
    nodes = Nodes(3, stack)
    nodes.others[0].end(exit_code=65, what="picture 7 is torn.")
    for peers in (nodes.first, nodes.others[1]):
        assert "node 1 ended with exit code 65: picture 7 is torn." in str(loss_of(peers))


def test_the_culprit_counts_and_not_who_was_heard_first(stack):
    nodes = Nodes(3, stack)
    nodes.others[0].end(exit_code=71, what="another machine does not answer")
    assert "node 1" in str(loss_of(nodes.first))
    nodes.others[1].end(exit_code=78, what="loss is nan")
    until(lambda: nodes.first._knows_the_culprit)
    assert "node 2 ended with exit code 78: loss is nan" in str(loss_of(nodes.first))


def test_after_a_stop_a_lost_node_is_no_failure(stack):
    nodes = Nodes(2, stack)
    nodes.first.stop.request()
    nodes.others[0].end(exit_code=75, what="stopped on request")
    assert isinstance(loss_of(nodes.first), StoppedError)


def test_a_node_that_ends_because_it_was_stopped_stops_the_others(stack):
    """Its end may overtake its word."""
    nodes = Nodes(2, stack)
    nodes.others[0].end(exit_code=75, what="stopped on request")
    assert isinstance(loss_of(nodes.first), StoppedError)
    assert nodes.first.stop.requested


class TestExplaining:
    def explained(self, peers, error):
        with pytest.raises(SdjobError) as caught, peers.explaining():
            raise error
        return caught.value

    @pytest.mark.parametrize("error", [PeerLostError("gloo: closed"), SdjobError("aborted by signal 6")])
    def test_a_failed_collective_is_explained_by_the_node_that_failed(self, stack, error):
        nodes = Nodes(2, stack)
        nodes.others[0].end(exit_code=65, what="picture 7 is torn")
        assert "node 1 ended with exit code 65" in str(self.explained(nodes.first, error))

    def test_a_nodes_own_error_is_its_own(self, stack):
        nodes = Nodes(2, stack)
        nodes.others[0].end(exit_code=78, what="loss is nan")
        until(lambda: nodes.first._loss is not None)
        error = DataError("picture 7 is torn")
        assert self.explained(nodes.first, error) is error

    def test_a_fault_whose_victims_alone_are_heard_is_a_fault(self, stack):
        nodes = Nodes(2, stack)
        nodes.others[0].end(exit_code=71, what="another machine does not answer")
        until(lambda: nodes.first._loss is not None)
        error = SdjobError("trainer process 0 was ended by signal 9.")
        assert self.explained(nodes.first, error) is error

    def test_a_lost_peer_of_whom_nothing_is_heard_stays_that(self, stack):
        nodes = Nodes(2, stack)
        error = PeerLostError("another machine does not answer")
        assert self.explained(nodes.first, error) is error

    def test_after_a_stop_it_is_the_stop(self, stack):
        nodes = Nodes(2, stack)
        nodes.first.stop.request()
        assert isinstance(self.explained(nodes.first, PeerLostError("gloo: closed")), StoppedError)

    def test_alone_nothing_is_waited_for(self):
        clock = FakeClock()
        error = SdjobError("a fault")
        assert self.explained(nobody(StopRequest(clock, notice_s=1.0), clock), error) is error
        assert clock.slept_s == []


class TestEnd:
    def test_the_others_wait_for_the_first(self, stack):
        nodes = Nodes(2, stack)
        nodes.first.end(exit_code=0, what="")
        nodes.others[0].await_end()

    def test_a_start_that_needs_no_training_is_an_end(self, stack):
        nodes = Nodes(2, stack)
        nodes.first.end(exit_code=0, what="")
        [word] = nodes.others[0].await_all("start")
        assert word["event"] == "end"

    def test_a_first_that_fails_at_the_end_is_told(self, stack):
        nodes = Nodes(2, stack)
        nodes.first.end(exit_code=74, what="the bucket is gone")
        with pytest.raises(PeerLostError, match="node 0 ended with exit code 74: the bucket is gone"):
            nodes.others[0].await_end()

    def test_another_followers_end_does_not_matter_any_more(self, stack):
        nodes = Nodes(3, stack)
        nodes.others[1].wires[0]._connection.shutdown(socket.SHUT_RDWR)
        loss_of(nodes.others[0])
        nodes.first.end(exit_code=0, what="")
        nodes.others[0].await_end()

    def test_the_wait_ends_with_the_notice(self, stack):
        nodes = Nodes(2, stack)
        nodes.others[0].stop.notice_s = 0.0
        nodes.others[0].stop.request()
        with pytest.raises(StoppedError, match="node 0 had not ended within the notice"):
            nodes.others[0].await_end()

    def test_a_victim_leaves_after_its_grace(self):
        clock = FakeClock()
        peers = Peers(Node(1, 2), {}, StopRequest(clock, notice_s=10.0), clock)
        peers.wait_for_the_culprit()
        assert sum(clock.slept_s) == pytest.approx(30, abs=0.5)

    def test_a_victim_that_is_asked_to_stop_leaves_at_once(self):
        clock = FakeClock()
        peers = Peers(Node(1, 2), {}, StopRequest(clock, notice_s=10.0), clock)
        peers.stop.request()
        peers.wait_for_the_culprit()
        assert clock.slept_s == []


class TestShape:
    def test_alone_it_is_as_it_was(self):
        clock = FakeClock()
        shape = nobody(StopRequest(clock, notice_s=1.0), clock).shaped(ALONE)
        assert (shape.node, shape.nodes, shape.host, shape.interface) == (0, 1, "127.0.0.1", "lo")
        assert shape.port > 0

    def test_trainers_start_when_every_node_has_its_files(self, stack):
        nodes = Nodes(3, stack)
        for peers in nodes.others:
            peers.tell("staged")
        first = nodes.first.shaped(ALONE)
        shapes = [peers.shaped(ALONE) for peers in nodes.others]
        assert [(shape.node, shape.nodes, shape.num_ranks) for shape in shapes] == [(1, 3, 6), (2, 3, 6)]
        assert {shape.port for shape in shapes} == {first.port}
        assert first.interface == "lo", "on one machine"

    def test_a_node_that_is_lost_before_is_not_waited_for(self, stack):
        nodes = Nodes(3, stack)
        nodes.others[0].tell("staged")
        nodes.others[1].end(exit_code=66, what="there is no model")
        with pytest.raises(PeerLostError, match="node 2 ended with exit code 66: there is no model"):
            nodes.first.shaped(ALONE)


class TestGarbage:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x80\x04\x95.\n",
            b'{"event": "end"}\n',
            b'{"event": "end", "exit_code": "0"}\n',
            b'{"event": "lost", "node": "x", "exit_code": 3}\n',
            b"[]\n",
        ],
    )
    def test_a_node_that_speaks_it_is_lost(self, stack, data):
        nodes = Nodes(2, stack)
        nodes.others[0].wires[0]._connection.sendall(data)
        assert "it sent what is no message" in str(loss_of(nodes.first))

    def test_a_start_that_cannot_be_read(self):
        start = Start(epoch=3, nonce="n", total_steps=9, threads=1, identity={"a": 1}, slot=4, digest="d")
        assert Start.of(start.fields()) == start
        with pytest.raises(SdjobError, match="whose nonce, slot cannot be read"):
            Start.of({**start.fields(), "nonce": None, "slot": "4"})


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("::ffff:127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    assert ipv4_of("none-such") is None

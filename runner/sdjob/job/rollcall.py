"""How the nodes of a gang find each other: node 0 listens at the gang's address, the others come and say who they are.

A start of the gang is the connections that are made here, between living processes. So no node can take the plan of an
earlier start for this one's, as it could if it read it from the run's place: an old node 0 is either gone, and its
connections with it, or it has closed its door.
"""

import hashlib
import json
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sdjob import __version__
from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import PeerLostError, UnavailableError, UsageError
from sdjob.core.log import Log
from sdjob.job.node import LOOPBACK, NODE, Node
from sdjob.job.wire import GarbageError, Wire
from sdjob.spec.job import JobSpec

ANSWER_S = 20.0  # whoever connects says at once who it is, and is answered at once
RETRY_S = 0.5
TURN_S = 0.2
MOST_STRANGERS = 64
LONGEST_WORDS = 2000
# Where a node's own files lie, and what node 0 alone does; that the contents are equal is seen once they are there.
OF_A_NODE: dict[str, Any] = {
    "model": {"source", "vae"},
    "data": {"source", "prior"},
    "train": {"init_from"},
    "checkpoint": {"to"},
    "run": {"scratch", "kubernetes", "workers", "notice_s", "max_hours", "spot"},
    "publish": True,
    "track": True,
}


def job_key(job: JobSpec) -> str:
    """The same on all nodes of a gang; another job's is another."""
    text = json.dumps(job.model_dump(mode="json", exclude=OF_A_NODE), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- node 0 ----------------------------------------------------------------------------------------------------------------


@dataclass
class RollCall:
    """Node 0's door, open from the start until all are there. A thread answers, whatever the attempt does meanwhile."""

    node: Node
    key: str
    clock: Clock
    log: Log
    present: dict[int, Wire] = field(default_factory=dict[int, Wire])
    _strangers: dict[Wire, float] = field(default_factory=dict[Wire, float])
    """Since when they have been connected without a word."""

    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False
    _listener: socket.socket | None = None
    _thread: threading.Thread | None = None

    def open(self) -> None:
        self._listener = listening(self.node)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._answer, name="roll-call", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return not self._closing

    @property
    def absent(self) -> list[int]:
        return sorted({*range(1, self.node.count)} - self.present.keys())

    def gather(self, *, check_stop: Callable[[], None]) -> dict[int, Wire]:
        """The connections of this start, by number. Raises PeerLostError where nodes do not come in time."""
        until_s = self.clock.monotonic_s() + self.node.wait_s
        with self._changed:
            if self.absent:
                self.log.event("gathering", f"waiting at {self.node.address} for {named(self.absent)} of {self.node.count}")
            while self.absent:
                check_stop()
                if self.clock.monotonic_s() >= until_s:
                    raise PeerLostError(
                        f"{named(self.absent)} did not come within {self.node.wait_s:g} s.",
                        where=self.node.address,
                        next_step=f"Start `sdjob run` there too, with {NODE}={self.absent[0]}; its own log says why it is late.",
                    )
                self._changed.wait(TURN_S)
            self._closing = True  # whoever comes from now on belongs to another start
        self._close_door()
        for wire in self.present.values():
            wire.send({"event": "welcome"})
        return self.present

    def dismiss(self, *, exit_code: int, what: str) -> None:
        """Tells all who have come that there will be no training, and why."""
        self._closing = True
        self._close_door()
        for wire in self.present.values():
            wire.send({"event": "end", "exit_code": exit_code, "what": what})
            wire.close()

    def _close_door(self) -> None:
        assert self._thread is not None
        assert self._listener is not None
        self._thread.join()
        self._listener.close()
        for wire in self._strangers:
            wire.close()
        self._selector.close()

    def _answer(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(TURN_S):
                if isinstance(key.fileobj, Wire):
                    self._hear(key.fileobj)
                else:
                    self._let_in()
            now_s = self.clock.monotonic_s()
            for wire in [wire for wire, since_s in self._strangers.items() if now_s - since_s > ANSWER_S]:
                self._turn_away(wire, "said nothing")

    def _let_in(self) -> None:
        assert self._listener is not None
        with suppress(OSError):  # whoever knocked may be gone already
            wire = Wire(self._listener.accept()[0])
            if len(self._strangers) >= MOST_STRANGERS:
                wire.close()
                return
            self._strangers[wire] = self.clock.monotonic_s()
            self._selector.register(wire, selectors.EVENT_READ)

    def _hear(self, wire: Wire) -> None:
        try:
            messages = wire.receive()
        except GarbageError as garbage:
            self._turn_away(wire, f"sent {garbage}")
            return
        if messages is None:
            self._forget(wire)
        elif messages and wire in self._strangers:
            self._judge(wire, messages[0])

    def _judge(self, wire: Wire, hello: Message) -> None:
        refusal = refused(hello, node=self.node, key=self.key)
        if refusal:
            wire.send({"event": "refused", "what": refusal})
            self._turn_away(wire, f"was refused: {refusal}")
            return
        number: int = hello["node"]
        before = self.present.get(number)
        if before is not None:
            # The kernel may not know yet that the earlier one is dead: the later one is surely alive.
            before.send({"event": "refused", "what": f"another process came as node {number}: each needs a number of its own."})
            self._turn_away(before, f"was node {number}, as which another came")
        with self._changed:
            if self._closing:
                return
            del self._strangers[wire]
            self.present[number] = wire
            self._changed.notify_all()
        wire.send({"event": "present"})
        self.log.event("joined", f"node {number} has come from {wire.other_host}", node=number)

    def _turn_away(self, wire: Wire, why: str) -> None:
        self.log.warning("stranger", f"{wire.other_host} came to the gang's address and {why}")
        self._forget(wire)

    def _forget(self, wire: Wire) -> None:
        self._selector.unregister(wire)
        with self._changed:
            self._strangers.pop(wire, None)
            for number in [number for number, present in self.present.items() if present is wire]:
                del self.present[number]
        wire.close()


def listening(node: Node) -> socket.socket:
    """On all of this machine's addresses: its own name may not be known yet, or be known to the others alone."""
    try:
        if node.host in {LOOPBACK, "localhost"}:
            return socket.create_server((LOOPBACK, node.port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", node.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", node.port))
    except OSError as error:
        raise UnavailableError(
            f"node 0 cannot listen at port {node.port}: {error.strerror}.",
            where=node.address,
            next_step="Another gang may be using it: end that, or give all nodes another port.",
        ) from error


def hello(node: Node, *, key: str) -> Message:
    return {"event": "hello", "sdjob": __version__, "job": key, "node": node.number, "nodes": node.count}


def refused(hello: Message, *, node: Node, key: str) -> str | None:
    """Why whoever says this may not join; None where it may."""
    number = hello.get("node")
    if hello["event"] != "hello" or type(number) is not int:
        return "this is the address of a gang of sdjob, and that was no greeting of a node."
    if hello.get("sdjob") != __version__:
        return f"node 0 is sdjob {__version__}, and node {number} is {shown(hello.get('sdjob'))}: all need the same version."
    if hello.get("nodes") != node.count:
        return f"node 0 counts {node.count} nodes, and node {number} counts {shown(hello.get('nodes'))}."
    if not 0 < number < node.count:
        return f"there is no node {number}: beside node 0 there are 1 to {node.count - 1}."
    if hello.get("job") != key:
        return f"node {number} was given another job than node 0: the job files, or what --set says, differ."
    return None


def shown(value: Any) -> str:
    return str(value)[:40]


def named(numbers: list[int]) -> str:
    return f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


# ---- the others ------------------------------------------------------------------------------------------------------------


@dataclass
class Enlistment:
    """Of a node that is not the first: knocks until node 0 has answered and all are there."""

    node: Node
    key: str
    clock: Clock
    log: Log
    check_stop: Callable[[], None]
    _without_s: float = 0.0
    """How long there has been no connection; being kept waiting by a node 0 that answers does not count."""

    _why: str = "it was not tried"

    def join(self) -> tuple[Wire, Message]:
        """The connection of this start and its first word, "welcome" or "end". Raises UsageError where node 0 refuses."""
        self.log.event("joining", f"node {self.node.number} of {self.node.count} asks for node 0 at {self.node.address}")
        while True:
            started_s = self.clock.monotonic_s()
            if (wire := self._connected()) is not None:
                kept_s, word = self._heard(wire)
                if word is not None:
                    return wire, word
                started_s += kept_s
            self.clock.sleep(RETRY_S)
            self._without_s += self.clock.monotonic_s() - started_s
            self._check_time()

    def _heard(self, wire: Wire) -> tuple[float, Message | None]:
        """(how long node 0 kept us waiting, its word); without one the connection is closed."""
        word, asked_s = None, self.clock.monotonic_s()
        try:
            word = self._awaited(wire, "present", timeout_s=ANSWER_S)
            if word is None or word["event"] == "end":
                return 0.0, word
            word = self._awaited(wire, "welcome", timeout_s=None)
            self._why = "it went away before all nodes were there"
            return self.clock.monotonic_s() - asked_s, word
        finally:
            if word is None or word["event"] == "present":
                wire.close()

    def _check_time(self) -> None:
        self.check_stop()
        if self._without_s >= self.node.wait_s:
            raise PeerLostError(
                f"no node 0 answered within {self.node.wait_s:g} s ({self._why}).",
                where=self.node.address,
                next_step=f"Start `sdjob run` on the first machine, with {NODE}=0; its own log says why it does not answer.",
            )

    def _connected(self) -> Wire | None:
        try:
            wire = Wire(socket.create_connection((self.node.host, self.node.port), timeout=RETRY_S * 10))
        except OSError as error:
            self._why = error.strerror or str(error)
            return None
        return wire if wire.send(hello(self.node, key=self.key)) else None

    def _awaited(self, wire: Wire, event: str, *, timeout_s: float | None) -> Message | None:
        """The next word where it is this one or "end"; None where the other side is gone, is silent or is no sdjob."""
        started_s = self.clock.monotonic_s()
        with selectors.DefaultSelector() as selector:
            selector.register(wire, selectors.EVENT_READ)
            while timeout_s is None or self.clock.monotonic_s() - started_s < timeout_s:
                self.check_stop()
                if not selector.select(TURN_S):
                    continue
                try:
                    messages = wire.receive_one()
                except GarbageError as garbage:
                    messages, self._why = None, f"what answers there is no sdjob: it sent {garbage}"
                if messages is None:
                    return None
                if word := next(iter(messages), None):
                    return self._understood(word, event)
        self._why = "what answers there is no sdjob: it says nothing"
        return None

    def _understood(self, word: Message, event: str) -> Message | None:
        if word["event"] == "refused":
            raise UsageError(words_of(word), where=self.node.address)
        self._why = "what answers there is no sdjob"
        return word if word["event"] in {event, "end"} else None


def words_of(message: Message) -> str:
    return str(message.get("what", ""))[:LONGEST_WORDS]

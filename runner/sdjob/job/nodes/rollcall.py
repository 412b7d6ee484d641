"""How the nodes of a gang find each other: node 0 listens at the gang's address, the others come and say who they are.

A start of the gang is the connections that are made here, between living processes. So no node can take the plan of an
earlier start for this one's, as it could if it read it from the run's place: an old node 0 is either gone, and its
connections with it, or it has closed its door.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import PeerLostError, UnavailableError
from sdjob.core.log import Log
from sdjob.job.nodes.greeting import named, refused
from sdjob.job.nodes.node import LOOPBACK, NODE, Node
from sdjob.job.nodes.wire import GarbageError, Wire

ANSWER_S = 20.0  # whoever connects says at once who it is, and is answered at once
TURN_S = 0.2
MOST_STRANGERS = 64


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

"""How a node that is not the first finds node 0: it knocks at the gang's address until it is answered and all are there."""

import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import PeerLostError, UsageError
from sdjob.core.log import Log
from sdjob.job.nodes.greeting import hello, words_of
from sdjob.job.nodes.node import NODE, Node
from sdjob.job.nodes.rollcall import ANSWER_S
from sdjob.job.nodes.wire import GarbageError, Wire

RETRY_S = 0.5
CONNECT_S = 5.0
TURN_S = 0.2


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
            wire = Wire(socket.create_connection((self.node.host, self.node.port), timeout=CONNECT_S))
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

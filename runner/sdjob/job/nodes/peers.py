"""The other nodes of a gang while an attempt lasts: a stop request reaches all of them, and one that is gone is noticed.

Node 0 is connected to all others, and passes on what one of them says. Alone there is nobody, and all of this does nothing.
"""

import os
import queue
import selectors
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import PeerLostError, SdjobError, StoppedError, TimeSpentError
from sdjob.job.launch import GangShape
from sdjob.job.nodes.greeting import words_of
from sdjob.job.nodes.interface import free_port, interface_of
from sdjob.job.nodes.node import ALONE, LOOPBACK, Node
from sdjob.job.nodes.wire import GarbageError, Wire
from sdjob.job.stop import RERUN, StopRequest

TURN_S = 0.2
HEAR_S = 3.0  # after a collective failed: how long a word about the culprit may be under way
UNCLEAR = (SdjobError.exit_code, PeerLostError.exit_code)
STOPS = (StoppedError.exit_code, TimeSpentError.exit_code)


@dataclass(frozen=True)
class Loss:
    number: int
    exit_code: int | None
    """None where it went without a word."""

    what: str = ""

    @property
    def is_of_a_victim(self) -> bool:
        """It lost a peer itself, so that another one is the cause."""
        return self.exit_code == PeerLostError.exit_code

    def __str__(self) -> str:
        if self.exit_code is None:
            return f"node {self.number} is gone without a word"
        return f"node {self.number} ended with exit code {self.exit_code}: {self.what.rstrip('.')}"


@dataclass
class Peers:
    node: Node
    wires: dict[int, Wire]
    """By number. Node 0 has all others, the others have node 0."""

    stop: StopRequest
    clock: Clock
    on_loss: Callable[[], None] = lambda: None
    """Called from the listening thread."""

    _words: "queue.Queue[tuple[int, Message]]" = field(default_factory=queue.Queue["tuple[int, Message]"])
    _loss: Loss | None = None
    """The first, or the culprit's."""

    _losses: dict[int, Loss] = field(default_factory=dict[int, Loss])
    _ended: set[int] = field(default_factory=set[int])
    _thread: threading.Thread | None = None
    _close_fd: int = -1

    def start(self) -> None:
        close_fd, self._close_fd = os.pipe()
        self._thread = threading.Thread(target=self._listen, args=(close_fd,), name="peers", daemon=True)
        self._thread.start()

    @property
    def interface(self) -> str | None:
        """The network interface towards the others, where it can be told."""
        return interface_of(next(iter(self.wires.values())).own_host)

    # ---- from the attempt ----------------------------------------------------------------------------------------------------

    def tell(self, event: str, **fields: Any) -> None:
        self._pass_on({"event": event, **fields})

    def await_all(self, event: str) -> list[Message]:
        """Such a message of every peer, in any order; a node's "end" counts as one. Raises as `check` does."""
        heard: dict[int, Message] = {}
        while heard.keys() != self.wires.keys():
            with suppress(queue.Empty):
                number, word = self._words.get(timeout=TURN_S)
                if word["event"] in {event, "end"}:
                    heard[number] = word
                continue
            self.stop.check()
            self.check()
        return list(heard.values())

    def await_end(self) -> None:
        """Until node 0 has published all; a stop request leaves it the time of the notice."""
        while 0 not in self._ended and 0 not in self._losses:
            if self.stop.seconds_left() <= 0:
                raise self.stop.ending("node 0 had not ended within the notice")
            self.clock.sleep(TURN_S)
        if loss := self._losses.get(0):
            raise self._lost(loss)

    def shaped(self, alone: GangShape) -> GangShape:
        """Of this node's trainers among all others, once every node has its files: then they start at the same time."""
        if self.node.is_alone:
            return replace(alone, port=free_port())
        if self.node.is_first:
            self.await_all("staged")
            host, port = LOOPBACK, free_port("")
            self.tell("trainers", port=port)
        else:
            self.tell("staged")
            [word] = self.await_all("trainers")
            host, port = self.node.host, whole(word["port"])
        return replace(alone, node=self.node.number, nodes=self.node.count, host=host, port=port, interface=self.interface)

    def take_first(self, word: Message) -> None:
        """What was heard before `start`."""
        self._take(0, word)

    def check(self) -> None:
        """PeerLostError once a node is gone; after a stop request it went because of that."""
        if self._loss is not None:
            raise self._lost(self._loss)

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Around the trainers: one whose collective failed seldom knows why, and the node that was the cause tells it."""
        try:
            yield
        except SdjobError as error:
            if self.node.is_alone or error.exit_code not in UNCLEAR:
                raise
            self._await_culprit()
            if self._loss is not None and (error.exit_code == PeerLostError.exit_code or self._knows_the_culprit):
                raise self._lost(self._loss) from error
            if self.stop.requested:
                raise self.stop.ending("a node stopped before the step was over") from error
            raise

    def _await_culprit(self) -> None:
        until_s = self.clock.monotonic_s() + HEAR_S
        while not self._knows_the_culprit and self.clock.monotonic_s() < until_s:
            self.clock.sleep(TURN_S)

    @property
    def _knows_the_culprit(self) -> bool:
        return self._loss is not None and not self._loss.is_of_a_victim

    def _lost(self, loss: Loss) -> SdjobError:
        if self.stop.requested:
            return self.stop.ending(str(loss))
        return PeerLostError(f"{loss}.", next_step=RERUN)

    def end(self, *, exit_code: int, what: str) -> None:
        """This node's last word."""
        self.tell("end", exit_code=exit_code, what=what)

    def leave(self) -> None:
        """At the very end; nothing is heard from here on."""
        if self._thread is not None:
            os.close(self._close_fd)
            self._thread.join()
        for wire in self.wires.values():
            wire.close()

    def wait_for_the_culprit(self) -> None:
        """A node that lost a peer ends after the peer, so that whoever starts the gang again sees the cause first."""
        until_s = self.clock.monotonic_s() + self.node.grace_s
        while self.clock.monotonic_s() < until_s and not self.stop.requested:
            self.clock.sleep(TURN_S)

    # ---- the listening thread ------------------------------------------------------------------------------------------------

    def _listen(self, close_fd: int) -> None:
        with selectors.DefaultSelector() as selector:
            for number, wire in self.wires.items():
                selector.register(wire, selectors.EVENT_READ, data=number)
            selector.register(self.stop.wake_fd, selectors.EVENT_READ, data="stop")
            selector.register(close_fd, selectors.EVENT_READ, data="close")
            while True:
                for key, _ in selector.select():
                    if key.data == "close":
                        os.close(close_fd)
                        return
                    if key.data == "stop":
                        self._pass_on_stop()
                    if key.data == "stop" or not self._hears(key.data):
                        selector.unregister(key.fileobj)

    def _pass_on_stop(self) -> None:
        cause = self.stop.cause
        self.tell("stop", **({"exit_code": cause.exit_code, "what": str(cause)} if cause else {}))

    def _pass_on(self, message: Message) -> None:
        for wire in self.wires.values():
            wire.send(message)

    def _hears(self, number: int) -> bool:
        """False once there is nothing more to hear from it."""
        try:
            messages = self.wires[number].receive()
            for message in messages or ():
                self._take(number, message)
        except (GarbageError, KeyError, TypeError) as garbage:
            self._lose(Loss(number, SdjobError.exit_code, f"it sent what is no message ({garbage})"))
            return False
        if messages is None and number not in self._ended:
            self._lose(Loss(number, None))
        return messages is not None

    def _take(self, number: int, message: Message) -> None:
        match message["event"]:
            case "stop":
                self.stop.request(cause=cause_of(message))
            case "lost":
                self._lose(Loss(whole(message["node"]), message["exit_code"], words_of(message)))
            case "end":
                self._on_end(number, message)
            case _:
                self._words.put((number, message))

    def _on_end(self, number: int, message: Message) -> None:
        code = whole(message["exit_code"])
        if code in STOPS:
            self.stop.request(cause=cause_of(message))
        if code == 0:
            self._words.put((number, message))
        else:
            self._lose(Loss(number, code, words_of(message)))
        self._ended.add(number)

    def _lose(self, loss: Loss) -> None:
        """The first counts, unless it was a victim's and the culprit is heard now."""
        self._losses.setdefault(loss.number, loss)
        if self._loss is None or (self._loss.is_of_a_victim and not loss.is_of_a_victim):
            self._loss = loss
            if self.node.is_first:
                self.tell("lost", node=loss.number, exit_code=loss.exit_code, what=loss.what)
            self.on_loss()


def cause_of(message: Message) -> SdjobError | None:
    """Why another node asks for a stop, where it was no signal that asked there."""
    return TimeSpentError(words_of(message)) if message.get("exit_code") == TimeSpentError.exit_code else None


def whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is no whole number")
    return value


def nobody(stop: StopRequest, clock: Clock) -> Peers:
    return Peers(ALONE, {}, stop, clock)

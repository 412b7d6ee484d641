"""The trainer's processes while they run: starts them, hears them, stops them, and tells how they ended."""

import os
import selectors
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import PeerLostError, SdjobError, error_for_exit_code
from sdjob.core.proc import Child
from sdjob.job.launch import Command
from sdjob.job.standby import started
from sdjob.job.stop import RERUN, StopRequest

LAST_WORDS_S = 3.0  # after one process failed its peers fail in their collective: the first one's own words count
OF_ANY_RANK = {"shard", "part", "compiled"}
WATCH_S = 1.0  # how often time limits are looked at while nothing happens


@dataclass
class Gang:
    """All methods belong to the main thread, except `tell_main` and `wake`."""

    stop: StopRequest
    clock: Clock
    on_message: Callable[[Message], None]
    """Rank 0's messages, and what each rank tells of its own work, as they come."""

    watch: Callable[[], None]
    """Called at least every WATCH_S seconds; raises to end the training."""

    begin: Callable[[Command], Child] = started
    """A process for each command, which may have been started before."""

    children: list[Child] = field(default_factory=list[Child])
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _failures: list[tuple[int, Message]] = field(default_factory=list[tuple[int, Message]])
    _ending: str | None = None
    _training: bool = False
    _stop_sent: bool = False
    _wake: tuple[int, int] = field(default_factory=os.pipe)

    def wake(self) -> None:
        """From any thread: have `watch` called now."""
        os.write(self._wake[1], b"!")

    def tell_main(self, message: Message) -> None:
        self.children[0].channel.send(message)

    def run(self, commands: Sequence[Command]) -> str:
        """How the trainer said that it ended: "finished" or "stopped". Raises the error that its exit code names."""
        self._selector.register(self.stop.wake_fd, selectors.EVENT_READ)
        self._selector.register(self._wake[0], selectors.EVENT_READ)
        try:
            for command in commands:
                self._start(command)
            while self._open_channels():
                self._turn()
            self._raise_for_failures()
        finally:
            for child in self.children:
                child.kill()
            self._selector.close()
        return self._ending or "stopped"

    def _start(self, command: Command) -> None:
        child = self.begin(command)
        self.children.append(child)
        self._selector.register(child.channel.read_fd, selectors.EVENT_READ, data=len(self.children) - 1)
        child.channel.send(command.task)  # one that has died does not hear it, and is found below

    def _open_channels(self) -> int:
        return sum(key.data is not None for key in self._selector.get_map().values())

    def _turn(self) -> None:
        for key, _ in self._selector.select(WATCH_S):
            if key.data is not None:
                self._hear(key.data)
            elif key.fileobj == self._wake[0]:
                os.read(self._wake[0], 1 << 10)
        self.watch()
        if self.stop.requested:
            self._pass_on_stop()

    def _hear(self, rank: int) -> None:
        child = self.children[rank]
        messages = child.channel.receive()
        if messages is None:
            if self._has_failed(rank):
                self._hear_last_words()
            return
        for message in messages:
            if message["event"] == "failed":
                self._failures.append((rank, message))
            elif rank == 0 or message["event"] in OF_ANY_RANK:
                self._note(message)

    def _has_failed(self, rank: int) -> bool:
        """Of a process whose channel has ended: its failure is noted, with its words or without."""
        child = self.children[rank]
        self._selector.unregister(child.channel.read_fd)
        if child.process.wait() == 0:
            return False
        self._failures.append((rank, {"exit_code": child.exit_code}))
        return True

    def _hear_last_words(self) -> None:
        """A failed process leaves its peers waiting in a collective: give them a moment for their own words, no more."""
        until_s = self.clock.monotonic_s() + LAST_WORDS_S
        while self._open_channels() and self.clock.monotonic_s() < until_s:
            for key, _ in self._selector.select(0.1):
                if key.data is not None:
                    self._hear_quietly(key.data)
        self._raise_for_failures()

    def _hear_quietly(self, rank: int) -> None:
        messages = self.children[rank].channel.receive()
        if messages is None:
            self._has_failed(rank)
        else:
            self._failures += [(rank, m) for m in messages if m["event"] == "failed"]

    def _note(self, message: Message) -> None:
        if message["event"] == "ready":
            self._training = True
        if message["event"] in ("finished", "stopped"):
            self._ending = message["event"]
        self.on_message(message)

    def _pass_on_stop(self) -> None:
        if not self._training:
            raise self.stop.ending("nothing was under way that a save could keep")
        if not self._stop_sent:
            self._stop_sent = True
            self._selector.unregister(self.stop.wake_fd)  # it stays readable: to be woken by it once is enough
            for child in self.children:
                child.channel.send({"event": "stop"})
        if self.stop.seconds_left() <= 0:
            raise self.stop.ending("the notice ended before the step did")

    def _raise_for_failures(self) -> None:
        if self._failures:
            raise failure_of(self._failures)


def failure_of(failures: Sequence[tuple[int, Mapping[str, Any]]]) -> SdjobError:
    """The cause among what the processes said: an error of the user's before a signal, that before a fault of ours."""
    spoken = [(rank, m) for rank, m in failures if "what" in m]
    # A peer that dies in a collective speaks of the collective (70) or, among several nodes, of a lost peer (71), or its watchdog
    # aborts it: whoever names another cause, or was killed, is the culprit.
    named = [(rank, m) for rank, m in spoken if m["exit_code"] not in (SdjobError.exit_code, PeerLostError.exit_code)]
    killed = [(rank, m) for rank, m in failures if m["exit_code"] < 0 and m["exit_code"] != -signal.SIGABRT]
    faults = [(rank, m) for rank, m in spoken if m["exit_code"] == SdjobError.exit_code]
    rank, message = (named or killed or faults or spoken or list(failures))[0]
    if "what" in message:
        return error_for_exit_code(message["exit_code"], message["what"])
    code = message["exit_code"]
    if code < 0:
        cause = f"was ended by signal {-code}" + (": perhaps this machine ran out of memory" if code == -9 else "")
        return SdjobError(f"trainer process {rank} {cause}.", next_step=RERUN)
    return error_for_exit_code(code, f"trainer process {rank} ended with exit code {code} and no word.")

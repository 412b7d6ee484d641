"""A connection between two nodes: JSON lines of bounded length, from a network that is not trusted to speak our language."""

import json
import select
import socket
import threading
from contextlib import suppress
from typing import Any, cast

from sdjob.core.channel import Message

LONGEST_LINE = 256 * 1024  # a plan names the files of the model with their hashes: some 10 KB
SEND_S = 10.0  # how long a message waits at most for a peer that does not read
CHUNK_BYTES = 1 << 16
# A machine that vanished says no farewell: the kernel asks after 10 s of silence, and gives up 20 s later.
ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}


class GarbageError(ValueError):
    """What came is no message of ours."""


class Wire:
    """Sending is safe from several threads; receiving belongs to one."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if option := getattr(socket, name, None):  # not every system has them all
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = connection
        self._lock = threading.Lock()
        self._rest = b""

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    @property
    def own_host(self) -> str:
        """This machine's address on the way to the other side."""
        return self._connection.getsockname()[0]

    @property
    def other_host(self) -> str:
        try:
            return self._connection.getpeername()[0]
        except OSError:
            return "somewhere"

    def send(self, message: Message) -> bool:
        """False where the other side is gone."""
        try:
            with self._lock:
                self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """What has come since, once a selector says that there is something. None: the other side is gone."""
        return self._messages_in(CHUNK_BYTES)

    def receive_one(self) -> list[Message] | None:
        """As `receive`, and leaves to the kernel what stands behind the first message: a selector still tells of it."""
        try:
            seen = self._connection.recv(CHUNK_BYTES, socket.MSG_PEEK)
        except OSError:
            return None
        return self._messages_in(seen.find(b"\n") + 1 or CHUNK_BYTES)

    def _messages_in(self, most_bytes: int) -> list[Message] | None:
        try:
            chunk = self._connection.recv(most_bytes)
        except OSError:
            return None
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if max(map(len, [*lines, self._rest])) > LONGEST_LINE:
            raise GarbageError(f"a line of more than {LONGEST_LINE} bytes")
        return [parsed(line) for line in lines]

    def close(self) -> None:
        """What was sent arrives: a connection that is closed with bytes unread would take it back."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while select.select([self], [], [], 0)[0] and self._connection.recv(CHUNK_BYTES):
                pass
        self._connection.close()


def parsed(line: bytes) -> Message:
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GarbageError("a line that is no JSON") from error
    if not isinstance(message, dict) or not isinstance(cast("Message", message).get("event"), str):
        raise GarbageError("JSON that is no message")
    return cast("Message", message)

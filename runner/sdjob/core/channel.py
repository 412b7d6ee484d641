"""JSON lines over a pair of pipes: how a parent and the process that it started talk.

The end of the inbound pipe means that the other side is gone.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]
ENVIRONMENT_NAME = "SDJOB_CHANNEL"  # "read_fd,write_fd" of the child's ends


class Channel:
    """Both ends' view. Writing is safe from several threads; reading belongs to one."""

    def __init__(self, *, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self._write_fd = write_fd
        self._lock = threading.Lock()
        self._rest = b""
        self._heard: deque[Message] = deque()

    def send(self, message: Message) -> bool:
        """False where the other side is gone."""
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                while line:
                    line = line[os.write(self._write_fd, line) :]
        except BrokenPipeError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """The messages that have come; blocks until there is something. None: the other side is gone."""
        chunk = os.read(self.read_fd, 1 << 16)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def receive_one(self) -> Message | None:
        """The next message, with those that came in the same read left to the next call or to a loop over the channel. Who asks a
        selector takes `receive`."""
        while not self._heard:
            if (messages := self.receive()) is None:
                return None
            self._heard += messages
        return self._heard.popleft()

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive_one()) is not None:
            yield message

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self._write_fd)


def inherited_channel() -> Channel | None:
    """The channel to the parent that started this process; None where a person did."""
    ends = os.environ.get(ENVIRONMENT_NAME)
    if ends is None:
        return None
    read_fd, write_fd = map(int, ends.split(","))
    os.set_inheritable(read_fd, False)
    os.set_inheritable(write_fd, False)
    return Channel(read_fd=read_fd, write_fd=write_fd)

"""A pseudo-terminal of a given size, and what a person sees on it."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

# What Screen and Log move the cursor by, and no more: a test that meets another code fails.
MOVE = re.compile(r"\x1b\[(\d*)([FJK])|([\r\n])|([^\x1b\r\n]+)")


@dataclass
class Terminal:
    stream: TextIO
    """What the program writes to."""

    master: int
    columns: int
    rows: int
    wrote: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        return self.wrote.decode()

    def seen(self) -> list[str]:
        """Its lines as they stand there, without the empty ones at the end."""
        lines, row, column = [""], 0, 0
        position = 0
        while position < len(self.text):
            found = MOVE.match(self.text, position)
            assert found, repr(self.text[position : position + 20])
            position = found.end()
            count, code, control, words = found.groups()
            if words:
                stays = self.text.startswith("\r\n", position)
                assert stays or column + len(words) <= self.columns, f"what is drawn over wraps: {words!r}"
                lines[row] = lines[row].ljust(column)[:column] + words + lines[row][column + len(words) :]
                column += len(words)
            elif control == "\r":
                column = 0
            elif control == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif code == "F":
                row, column = row - int(count or 1), 0
                assert row >= 0
            elif code == "K":
                lines[row] = lines[row][:column]
            else:
                del lines[row + 1 :]
                lines[row] = lines[row][:column]
        return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")


@contextmanager
def terminal(*, columns: int, rows: int = 24) -> Iterator[Terminal]:
    """Its text is whole after the block."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    stream = os.fdopen(slave, "w", encoding="utf-8", newline="")
    made = Terminal(stream, master, columns, rows)
    reader = threading.Thread(target=read_into, args=(made,))
    reader.start()
    try:
        yield made
    finally:
        stream.close()
        reader.join()
        os.close(master)


def read_into(made: Terminal) -> None:
    while True:
        try:
            data = os.read(made.master, 65536)
        except OSError:  # EIO: nobody writes there any more
            return
        if not data:
            return
        made.wrote += data

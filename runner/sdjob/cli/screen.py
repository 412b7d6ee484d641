"""Lines on a terminal that are drawn over themselves."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

# https://ecma-international.org/publications-and-standards/standards/ecma-48/: CPL goes up to the start of a line, ED and EL
# erase from the cursor on.
UP, ERASE_BELOW, ERASE_REST = "\x1b[{}F", "\x1b[J", "\x1b[K"
USUAL_SIZE = os.terminal_size((80, 24))


@dataclass
class Screen:
    stream: TextIO
    _height: int = 0
    """Lines that the next drawing covers."""

    @property
    def columns(self) -> int:
        """What fits into a line without wrapping."""
        return self._size().columns - 1

    def draw(self, lines: Sequence[str]) -> None:
        """What does not fit is cut off: a block that scrolls could not be drawn over."""
        size = self._size()
        shown = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
        up = UP.format(self._height) if self._height else ""
        self.stream.write(up + "".join(f"{line}{ERASE_REST}\n" for line in shown) + ERASE_BELOW)
        self.stream.flush()
        self._height = len(shown)

    def leave(self) -> None:
        """What is there stays; others write below it."""
        self._height = 0

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self.stream.fileno())
        except OSError:
            return USUAL_SIZE
        return size if size.columns and size.lines else USUAL_SIZE

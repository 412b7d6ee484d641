"""An index as the bytes of its lines. There may be millions: a line is read when its picture is asked for, and what is in memory
is the file (of one that is mapped, what was looked at) and some 30 bytes of each picture.
"""

import codecs
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from mmap import mmap
from typing import overload

import numpy as np
import numpy.typing as npt

from sdjob.data.columns import Bytes, Columns, Look, chained, hashes_before, look_at_lines
from sdjob.data.entries import (
    VERSION,
    VERSION_OF_SEVERAL,
    Entry,
    damage,
    entry_of,
    fields_of,
    header_of,
    line_of,
    lines_of_form,
    what_is_wrong,
)

PIECE_BYTES = 4 * 1024 * 1024  # looked at together


class Lines(Sequence[Entry]):
    """Equal to every sequence of the same entries."""

    def __init__(self, data: "bytes | mmap") -> None:
        """`data` was written by `to_jsonl`; for what may be damaged see `from_jsonl`."""
        self.data = data

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each line begins, the header's first; the end of the last one behind them."""
        view = self.view
        pieces = range(0, len(view), PIECE_BYTES)
        ends = [np.flatnonzero(view[first : first + PIECE_BYTES] == ord("\n")) + first + 1 for first in pieces]
        return np.concatenate([np.zeros(1, np.int64), *ends])

    @property
    def view(self) -> Bytes:
        return np.frombuffer(self.data, np.uint8)

    @cached_property
    def several(self) -> bool:
        """Whether every line says which source its picture is of."""
        return fields_of(self.line(0), 1)["sdjob_index"] == VERSION_OF_SEVERAL

    @cached_property
    def columns(self) -> Columns:
        return chained([look.columns for look in self.looks()])

    @property
    def sources(self) -> npt.NDArray[np.int16]:
        return self.columns.sources if self.several else np.zeros(len(self), np.int16)

    def looks(self) -> Iterator[Look]:
        """At all of them in their order, some at a time."""
        for first, end in self.pieces():
            begins, ends = self.starts[first:end], self.starts[first + 1 : end + 1]
            yield look_at_lines(self.view, begins=begins, ends=ends, several=self.several)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """The first and the end of lines that are looked at together; the header is the first line of all, and in none."""
        ends = np.arange(int(self.starts[1]), int(self.starts[-1]), PIECE_BYTES)
        yield from pairwise(np.unique([1, *np.searchsorted(self.starts, ends), len(self) + 1]).tolist())

    def hashes(self, numbers: npt.NDArray[np.integer]) -> list[str]:
        """The sha256 of these pictures."""
        sources = self.sources[numbers] if self.several else None
        return hashes_before(self.view, ends=self.starts[numbers + 2], widths=self.columns.widths[numbers], sources=sources)

    def __len__(self) -> int:
        return len(self.starts) - 2

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, number: int | slice) -> Entry | tuple[Entry, ...]:
        which = range(len(self))[number]
        return tuple(map(self.__getitem__, which)) if isinstance(which, range) else entry_of(self.line(which + 1))

    def __iter__(self) -> Iterator[Entry]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType] - as lists have it

    def line(self, number: int) -> bytes:
        """The header is the first."""
        return self.data[self.starts[number] : self.starts[number + 1]]


class Picked(Sequence[Entry]):
    """Some of the entries, in their order."""

    def __init__(self, entries: Sequence[Entry], numbers: npt.NDArray[np.integer]) -> None:
        self.entries = entries
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> "Picked": ...
    def __getitem__(self, number: int | slice) -> "Entry | Picked":
        picked = self.numbers[number]
        return Picked(self.entries, picked) if isinstance(number, slice) else self.entries[int(picked)]


def columns_of(entries: Sequence[Entry]) -> Columns:
    """Of few, which are no lines yet."""
    return Columns(
        np.array([entry.width for entry in entries], np.int32),
        np.array([entry.height for entry in entries], np.int32),
        np.array([int(entry.sha256[:16], 16) for entry in entries], np.uint64),
        np.array([entry.source for entry in entries], np.int16),
    )


def from_jsonl(data: bytes) -> Lines:
    """Raises DataError, naming the line, for anything that `to_jsonl` does not write."""
    _require_text(data)
    header = fields_of(data[: data.index(b"\n") + 1], 1)
    version = header.get("sdjob_index")
    if version not in {VERSION, VERSION_OF_SEVERAL}:
        raise damage(1, f"version {version!r} is not {VERSION} or {VERSION_OF_SEVERAL}, which this sdjob reads.")
    lines = Lines(data)
    _require_whole(lines)
    if header.get("pictures") != len(lines):
        raise damage(1, f"promises {header.get('pictures')!r} pictures, {len(lines)} follow.")
    if lines.line(0) != header_of(len(lines), several=lines.several):
        raise damage(1, "is not as sdjob writes it.")
    _require_no_name_twice(lines)
    return lines


def to_jsonl(entries: Sequence[Entry]) -> bytes:
    if isinstance(entries, Lines):
        return bytes(entries.data)
    writer = LineWriter(several=any(entry.source for entry in entries))
    for entry in entries:
        writer.add(entry)
    return bytes(writer.lines().data)


class LineWriter:
    def __init__(self, *, several: bool) -> None:
        self.several = several
        self.num_lines = 0
        self._body = bytearray()

    def add(self, entry: Entry) -> None:
        self._body += line_of(entry, several=self.several)
        self.num_lines += 1

    def lines(self) -> Lines:
        return Lines(b"".join((header_of(self.num_lines, several=self.several), self._body)))


def _require_whole(lines: Lines) -> None:
    """Raises DataError for a line that `to_jsonl` does not write."""
    whole = lines_of_form(several=lines.several)
    for first, end in lines.pieces():
        match = whole.match(lines.data, int(lines.starts[first]), int(lines.starts[end]))
        assert match is not None, "none at all fit too"
        if match.end() < lines.starts[end]:
            number = int(np.searchsorted(lines.starts, match.end(), side="right")) - 1
            raise what_is_wrong(lines.line(number), number + 1, several=lines.several)


def _require_no_name_twice(lines: Lines) -> None:
    hashes = array("q")
    for look in lines.looks():
        spans = zip(look.names.tolist(), look.names_end.tolist(), look.columns.sources.tolist(), strict=True)
        hashes.extend(hash((lines.data[begin:end], source)) for begin, end, source in spans)
    if len(np.unique(np.frombuffer(hashes, np.int64))) == len(lines):
        return  # else two names are the same, or their hashes are
    if len({(entry.source, entry.id) for entry in lines}) < len(lines):
        raise damage(1, "the same picture stands twice.")


def _require_text(data: bytes) -> None:
    """Piece after piece: as one text a file takes up to four times its size."""
    pieces = (data[first : first + PIECE_BYTES] for first in range(0, len(data), PIECE_BYTES))
    try:
        deque(codecs.iterdecode(pieces, "utf-8"), maxlen=0)
    except UnicodeDecodeError as error:
        raise damage(_line_that_is_no_text(data), "is not UTF-8.") from error
    if not data.endswith(b"\n"):
        raise damage(data.count(b"\n") + 1, "ends in the middle of a line.")


def _line_that_is_no_text(data: bytes) -> int:
    """UTF-8 has no line feed inside a character."""
    return next(
        number for number, line in enumerate(data.split(b"\n"), start=1) if line.decode("utf-8", "ignore").encode() != line
    )

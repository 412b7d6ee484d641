"""The captions of an index, each once, by number: of each some bytes are held, and its text is read where it lies.

The numbers are in the order in which captions first appear; the empty one, which dropped captions are, comes before all.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdjob.data.entries import STRING
from sdjob.data.lines import Lines

EMPTY = ""
SEVERAL = b'","'  # stands between two captions, and behind a quote inside of one
ONE_CAPTION = re.compile(STRING)
DELETE = b"\x7f"  # the one character of ASCII that stands in the index as it is, and not in JSON that is kept to ASCII


@dataclass(frozen=True)
class Captions:
    lines: Lines
    begins_C: NDArray[np.int64]
    """Where in the file each caption begins, with its quotes."""

    lengths_C: NDArray[np.int32]
    first_N: NDArray[np.int64]
    """Where a picture's captions begin in `numbers`."""

    numbers: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.begins_C)

    def of(self, picture: int, *, choice: int | None) -> int:
        """The number of a picture's so-and-so-manieth caption; None: of the empty one."""
        return 0 if choice is None else int(self.numbers[self.first_N[picture] + choice])

    def texts(self, numbers: NDArray[np.integer]) -> list[str]:
        return [json.loads(raw) for raw in self._raw(numbers)]

    def spelled(self, numbers: NDArray[np.integer]) -> list[str]:
        """As JSON in ASCII has them: most are so in the index."""
        return [
            raw.decode() if raw.isascii() and DELETE not in raw else json.dumps(json.loads(raw)) for raw in self._raw(numbers)
        ]

    def _raw(self, numbers: NDArray[np.integer]) -> Iterator[bytes]:
        spans = zip(self.begins_C[numbers].tolist(), self.lengths_C[numbers].tolist(), strict=True)
        return (self.lines.data[at : at + size] if size else b'""' for at, size in spans)


def captions_of(lines: Lines, *, hashed: Callable[[bytes], int] = hash) -> Captions:
    """`hashed` tells most captions apart: those of which it cannot are looked at themselves."""
    begins, lengths, counts = _spans(lines)
    hashes = array("q", [hashed(b'""')])
    hashes.extend(hashed(lines.data[at : at + size]) for at, size in zip(begins[1:], lengths[1:], strict=True))
    begins_A, lengths_A = np.frombuffer(begins, np.int64), np.frombuffer(lengths, np.int32)
    _, first, same = np.unique(np.frombuffer(hashes, np.int64), return_index=True, return_inverse=True)
    if not _are_equal(lines, begins_A, lengths_A, to=first[same]):
        first, same = _told_apart(lines, begins_A, lengths_A)
    order = np.argsort(first)
    number_of = np.empty(len(order), np.int32)
    number_of[order] = np.arange(len(order))
    chosen = first[order]
    first_N = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.frombuffer(counts, np.int32)[:-1], dtype=np.int64)])
    return Captions(lines, begins_A[chosen], lengths_A[chosen], first_N, number_of[same[1:]])


def _spans(lines: Lines) -> tuple["array[int]", "array[int]", "array[int]"]:
    """Of all captions where they begin and how long they are, the empty one before them; and how many each picture has."""
    data, find = lines.data, lines.data.find
    begins, lengths, counts = array("q", [0]), array("i", [0]), array("i")
    for look in lines.looks():
        for begin, end in zip(look.captions.tolist(), look.captions_end.tolist(), strict=True):
            if find(SEVERAL, begin, end) < 0:
                begins.append(begin)
                lengths.append(end - begin)
                counts.append(1)
                continue
            spans = [match.span() for match in ONE_CAPTION.finditer(data, begin, end)]
            begins.extend(first for first, _ in spans)
            lengths.extend(last - first for first, last in spans)
            counts.append(len(spans))
    return begins, lengths, counts


def _are_equal(lines: Lines, begins: NDArray[np.int64], lengths: NDArray[np.int32], *, to: NDArray[np.intp]) -> bool:
    """Each caption to the one of this place."""
    data, doubles = lines.data, np.flatnonzero(to != np.arange(len(to)))
    if not np.array_equal(lengths, lengths[to]):
        return False
    spans = zip(begins[doubles].tolist(), begins[to[doubles]].tolist(), lengths[doubles].tolist(), strict=True)
    return all(data[one : one + size] == data[other : other + size] for one, other, size in spans)


def _told_apart(lines: Lines, begins: NDArray[np.int64], lengths: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """As np.unique has it: where each caption first stands, and for every one which of them it is."""
    numbers: dict[bytes, int] = {}
    spans = zip(begins.tolist(), lengths.tolist(), strict=True)
    same = np.array([numbers.setdefault(lines.data[at : at + size], len(numbers)) for at, size in spans], np.intp)
    return np.unique(same, return_index=True)[1], same

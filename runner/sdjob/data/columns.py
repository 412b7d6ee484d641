"""What stands where in an index's lines, looked at many at a time: lines that are known to be as `entries.line_of` writes them.

{"captions":["a cat"],"height":512,"id":"0/17.png","sha256":"0f4e...","source":1,"width":640}
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
"""Of bytes in the file."""

# Eight bytes, which stand in each line once: inside a string there is a backslash before each quote.
HEIGHT = np.frombuffer(b'height":', np.uint64)[0]
MOST_DIGITS = 9  # of a number, as `entries.LINE` has it
LARGER = 10 ** np.arange(1, MOST_DIGITS)
HASH_CHARACTERS = 64


@dataclass(frozen=True)
class Columns:
    """Of all pictures, in the order of the index."""

    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    """In pixels."""

    content: npt.NDArray[np.uint64]
    """The first 64 bits of the sha256: enough to tell contents apart."""

    sources: npt.NDArray[np.int16]


@dataclass(frozen=True)
class Look:
    """At some lines that follow each other."""

    captions: Places
    """Where the list of them begins and ends, without its brackets."""

    captions_end: Places
    names: Places
    """Of the id, with its quotes."""

    names_end: Places
    columns: Columns


def look_at_lines(view: Bytes, *, begins: Places, ends: Places, several: bool) -> Look:
    """`view` is the whole file, with lines of the form that has sources, or of the one that has none."""
    height_at = _after_height(view[begins[0] : ends[-1]]) + begins[0]
    heights, height_end = _number_at(view, height_at)
    widths, width_at = _number_before(view, ends - len("}\n"))
    before = width_at - len(',"width":')
    sources = np.zeros(len(begins), np.int64)
    if several:
        sources, source_at = _number_before(view, before)
        before = source_at - len(',"source":')
    hash_at = before - len('"') - HASH_CHARACTERS
    return Look(
        captions=begins + len('{"captions":['),
        captions_end=height_at - len('],"height":'),
        names=height_end + len(',"id":'),
        names_end=hash_at - len(',"sha256":"'),
        columns=Columns(
            widths.astype(np.int32), heights.astype(np.int32), _first_64_bits(view, hash_at), sources.astype(np.int16)
        ),
    )


def chained(columns: Sequence[Columns]) -> Columns:
    return Columns(
        widths=np.concatenate([np.zeros(0, np.int32), *(part.widths for part in columns)]),
        heights=np.concatenate([np.zeros(0, np.int32), *(part.heights for part in columns)]),
        content=np.concatenate([np.zeros(0, np.uint64), *(part.content for part in columns)]),
        sources=np.concatenate([np.zeros(0, np.int16), *(part.sources for part in columns)]),
    )


def hashes_before(
    view: Bytes, *, ends: Places, widths: npt.NDArray[np.int32], sources: npt.NDArray[np.int16] | None
) -> list[str]:
    """The sha256 of each line that ends there; `sources` where the lines have them."""
    at = ends - len(',"width":}\n') - _num_digits(widths) - len('"') - HASH_CHARACTERS
    if sources is not None:
        at -= len(',"source":') + _num_digits(sources)
    return view[at[:, None] + np.arange(HASH_CHARACTERS)].view(f"S{HASH_CHARACTERS}").ravel().astype(str).tolist()


def _after_height(view: Bytes) -> Places:
    windows = np.ndarray((len(view) - 7,), np.uint64, view, strides=(1,))
    return np.flatnonzero(windows == HEIGHT) + 8


def _number_at(view: Bytes, at: Places) -> tuple[Places, Places]:
    """The numbers that begin there, and where they end."""
    values, ends = np.zeros(len(at), np.int64), at.copy()
    for _ in range(MOST_DIGITS):
        digits = view[ends] - np.uint8(ord("0"))  # others than digits become more than 9, as the byte wraps around
        more = digits < 10
        values = np.where(more, values * 10 + digits, values)
        ends += more
    return values, ends


def _number_before(view: Bytes, ends: Places) -> tuple[Places, Places]:
    """The numbers that end there, and where they begin."""
    values, begins = np.zeros(len(ends), np.int64), ends.copy()
    for power in range(MOST_DIGITS):
        digits = view[begins - 1] - np.uint8(ord("0"))
        more = digits < 10
        values += np.where(more, digits * np.int64(10**power), 0)
        begins -= more
    return values, begins


def _num_digits(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return 1 + np.searchsorted(LARGER, values, side="right")


def _first_64_bits(view: Bytes, at: Places) -> npt.NDArray[np.uint64]:
    letters = view[at[:, None] + np.arange(16)]
    halves = np.where(letters > ord("9"), letters - np.uint8(ord("a") - 10), letters - np.uint8(ord("0")))
    return (halves[:, ::2] << 4 | halves[:, 1::2]).view(">u8").ravel().astype(np.uint64)

"""An index of many pictures: bytes that are read where they are asked for, and what every line's look at them tells."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.core.errors import DataError
from sdjob.data import lines as lines_module
from sdjob.data.entries import Entry
from sdjob.data.index import Index, joined, read_index
from sdjob.data.lines import Lines, Picked, columns_of, from_jsonl, to_jsonl

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ENTRY = st.builds(
    Entry,
    id=TEXT,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    width=st.integers(1, 999_999_999),
    height=st.integers(1, 999_999_999),
    captions=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    source=st.integers(0, 3),
)
ENTRIES = st.lists(ENTRY, max_size=6, unique_by=lambda entry: (entry.source, entry.id))


def entries(count: int) -> tuple[Entry, ...]:
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in range(count)]
    return tuple(Entry(f"{n}.png", hashes[n], 10 + n, 20 + n, (f"caption {n}",)) for n in range(count))


@given(ENTRIES)
def test_whatever_is_written_is_read(written: list[Entry]):
    lines = from_jsonl(to_jsonl(written))
    assert lines == written
    assert to_jsonl(lines) == to_jsonl(written)
    for ours, theirs in zip(vars(lines.columns).values(), vars(columns_of(written)).values(), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert lines.hashes(np.arange(len(lines))) == [entry.sha256 for entry in written]


@given(ENTRIES, st.integers(0, 10_000), st.binary(min_size=1, max_size=1))
def test_whatever_has_changed_is_found_or_reads_as_what_it_says(written: list[Entry], place: int, byte: bytes):
    """One byte is another: the lines are refused, or are just what `to_jsonl` writes for what they say now."""
    data = bytearray(to_jsonl(written))
    data[place % len(data)] = byte[0]
    try:
        lines = from_jsonl(bytes(data))
    except DataError:
        return
    assert to_jsonl(tuple(lines)) == bytes(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"width":10', '"width":010'), ('":"0.png"', '": "0.png"'), ("caption", "\\u0063aption"), ('"width":1', '"width": 1')],
)
def test_another_spelling_of_the_same_is_refused(old: str, new: str):
    """The hash of the bytes is the run's identity: two spellings would be two runs."""
    data = to_jsonl(entries(2)).decode()
    assert old in data
    with pytest.raises(DataError, match="data index, line 2"):
        from_jsonl(data.replace(old, new, 1).encode())


def test_pieces_may_end_anywhere(monkeypatch: pytest.MonkeyPatch):
    written = tuple(replace(entry, captions=("größer 猫",)) for entry in entries(9))
    for piece_bytes in range(1, 40):
        monkeypatch.setattr(lines_module, "PIECE_BYTES", piece_bytes)
        lines = from_jsonl(to_jsonl(written))
        assert lines == written
        assert lines.columns.widths.tolist() == [entry.width for entry in written]


def test_a_trainer_reads_the_file_where_it_lies(tmp_path: Path):
    (tmp_path / "index.jsonl").write_bytes(to_jsonl(entries(5)))
    index = read_index(tmp_path / "index.jsonl")
    assert isinstance(index.entries, Lines)
    assert "columns" not in vars(index.entries), "no line is looked at before it is asked for"
    assert index.sources.tolist() == [0] * 5
    assert "columns" not in vars(index.entries), "one source needs no look at them"
    assert index.entries[3] == entries(5)[3]
    assert index == Index(entries(5))
    assert index.widths.tolist() == [10, 11, 12, 13, 14]


def test_as_a_sequence():
    lines = from_jsonl(to_jsonl(entries(5)))
    assert lines[-1] == entries(5)[4]
    assert lines[1:4:2] == entries(5)[1:4:2]
    with pytest.raises(IndexError):
        lines[5]
    assert lines != entries(4)
    assert (lines == 5) is False


def test_sources_are_joined_and_picked_apart():
    parts = [Index(from_jsonl(to_jsonl(entries(count)))) for count in (3, 2)]
    index = joined(parts)
    assert index.sources.tolist() == [0, 0, 0, 1, 1]
    assert [list(index.of_source(number).entries) for number in (0, 1)] == [
        [replace(entry, source=number) for entry in entries(count)] for number, count in enumerate((3, 2))
    ]
    assert isinstance(index.of_source(1).entries[:1], Picked)
    assert joined(parts[:1]) is parts[0]
    assert parts[0].of_source(0) is parts[0]

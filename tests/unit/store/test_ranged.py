"""Ranged reads over a source that tests make up: memory, order, and what a reader that stops half way leaves behind."""

import io
import threading
import zlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from sdjob.core.retry import Backoff
from sdjob.store import ranged
from sdjob.store.base import ObjectChangedError, TransientStoreError
from sdjob.store.ranged import Checksum, Opened, RangedReader, Span

RANGE = 100
DATA = bytes(range(256)) * 10 + b"the end"
BUFFERS = 3


class Made:
    """An object in memory; `versions` are handed out one by one, the last one for ever."""

    where = "memory://x"

    def __init__(self, data: bytes = DATA, *, expected: int | None = None, versions: tuple[str, ...] = ("1",)) -> None:
        self.data, self.versions = data, list(versions)
        self.expected = zlib.crc32(data) if expected is None else expected
        self.asked: list[Span | None] = []
        self.lock = threading.Lock()

    def errors(self):
        return nullcontext()

    def open(self, span: Span | None, *, version: str | None) -> Opened:
        with self.lock:
            self.asked.append(span)
            said = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        part = self.data if span is None else self.data[span.start : span.stop]
        checksum = None if span else Checksum("CRC32", zlib.crc32, self.expected)
        return Opened(len(self.data), said, io.BytesIO(part), checksum=checksum)


def reader(buffers: int = BUFFERS, *, in_one: int = 0) -> RangedReader:
    patience = Backoff(attempts=2, clock=FakeClock())
    return RangedReader(range_bytes=RANGE, in_one_bytes=in_one, backoff=patience, buffers=threading.BoundedSemaphore(buffers))


@pytest.mark.parametrize("size", [0, 1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE, len(DATA)])
def test_every_byte_once(size):
    made = Made(DATA[:size])
    assert reader().read(made) == DATA[:size]
    asked = [span for span in made.asked if span]
    assert sorted((span.start, span.stop) for span in asked) == [
        (start, min(start + RANGE, size)) for start in range(RANGE, size, RANGE)
    ]


class Breaks(Made):
    """Whose connections give so many bytes and break; those of ranges are whole."""

    def __init__(self, data: bytes = DATA, *, after: int, error: Exception | None, expected: int | None = None) -> None:
        super().__init__(data, expected=expected)
        self.after, self.error = after, error
        self.closed = 0

    def open(self, span: Span | None, *, version: str | None) -> Opened:
        opened = super().open(span, version=version)
        return opened if span else replace(opened, body=Breaking(self))


class Breaking(io.BytesIO):
    def __init__(self, made: Breaks) -> None:
        super().__init__(made.data[: made.after])
        self.made = made

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if not piece and self.made.error:
            raise self.made.error
        return piece

    def close(self) -> None:
        self.made.closed += 1
        super().close()


@pytest.mark.parametrize("after", [0, 1, RANGE, 3 * RANGE + 7, len(DATA) - 1])
@pytest.mark.parametrize("error", [None, TransientStoreError("reset")])
def test_what_one_connection_did_not_bring_is_asked_for_in_ranges(after, error):
    made = Breaks(after=after, error=error)
    assert reader(in_one=len(DATA)).read(made) == DATA
    asked = sorted((span.start, span.stop) for span in made.asked if span)
    assert asked == [(at, min(at + RANGE, len(DATA))) for at in range(after, len(DATA), RANGE)]
    assert made.closed == 1


def test_one_connection_where_it_is_enough():
    made = Breaks(after=len(DATA), error=TransientStoreError("never reached"))
    assert reader(in_one=len(DATA)).read(made) == DATA
    assert made.asked == [None]
    assert reader(in_one=len(DATA) - 1).read(Made()) == DATA  # and one byte more is read in ranges


def test_what_came_on_one_connection_has_the_checksum_too():
    with pytest.raises(TransientStoreError, match="CRC32"):
        reader(in_one=len(DATA)).read(Made(expected=1))


def test_a_reader_that_stops_half_way_closes_its_one_connection(monkeypatch):
    monkeypatch.setattr(ranged, "HANDED_BYTES", 10)
    made = Breaks(after=len(DATA), error=None)
    pieces = reader(in_one=len(DATA)).pieces(made)
    assert [next(pieces), next(pieces)] == [DATA[:10], DATA[10:20]]
    pieces.close()
    assert made.closed == 1


def test_pieces_are_bytes_in_order():
    pieces = list(reader().pieces(Made()))
    assert b"".join(pieces) == DATA
    assert {type(piece) for piece in pieces} == {bytes}
    assert all(len(piece) == RANGE for piece in pieces[:-1])


def test_no_more_is_read_ahead_than_there_are_buffers():
    made = Made()
    pieces = reader().pieces(made)
    next(pieces)
    next(pieces)
    assert len(made.asked) <= 1 + BUFFERS
    pieces.close()


def test_a_reader_that_stops_half_way_gives_its_buffers_back(tmp_path: Path):
    shared = reader()

    def tired(chunk: bytes) -> None:
        if chunk != DATA[:RANGE]:
            raise RuntimeError("enough")

    for _ in range(3 * BUFFERS):
        with pytest.raises(RuntimeError):
            shared.read_to(Made(), tmp_path / "x", on_chunk=tired)
    assert shared.read(Made()) == DATA


def test_readers_that_share_few_buffers_all_end(tmp_path: Path):
    shared, found = reader(buffers=1), list[bytes]()
    threads = [threading.Thread(target=lambda: found.append(shared.read(Made()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 8


def test_a_server_that_ignores_the_condition_is_seen_through():
    with pytest.raises(ObjectChangedError):
        reader().read(Made(versions=("1", "1", "1", "2")))


@pytest.mark.parametrize("size", [10, len(DATA)])
def test_a_wrong_checksum_is_never_passed_over(size):
    """A small object is not even handed out."""
    pieces, seen = reader().pieces(Made(DATA[:size], expected=1)), list[bytes]()
    with pytest.raises(TransientStoreError, match="CRC32"):
        seen.extend(pieces)
    made = Made(DATA[:size], expected=1)
    with pytest.raises(TransientStoreError, match="CRC32"):
        reader().read(made)
    assert made.asked.count(None) == (2 if size <= RANGE else 1)
    if size <= RANGE:
        assert seen == []

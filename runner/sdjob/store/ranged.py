"""Reads of objects over a network, made safe: SDKs repeat a call that failed, but not a body that broke off half way.

A large object is read in ranges, several at a time; one of a few ranges in one go, and in ranges from where that broke off.
Each range is held to one version of the object, checked for its length, and repeated on its own after a reset, a hang or a
truncation; the whole is held against the checksum that the store keeps.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sdjob.core.retry import Backoff, with_retries
from sdjob.store.base import ObjectChangedError, TransientStoreError, scratch_errors

RANGE_BYTES = (
    8 * 1024 * 1024
)  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html: 8-16 MB
IN_ONE_BYTES = 4 * RANGE_BYTES  # up to here one connection is enough: there are other objects to read at the same time
PIECE_BYTES = 256 * 1024
HANDED_BYTES = 1024 * 1024  # the allocator gives larger ones back each time, and the next one's pages must be made anew
AT_ONCE = 8  # ranges of one object
BUFFERS = 16  # ranges of all objects of one store: 128 MiB


class Body(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Checksum:
    """What the store knows about the whole object. `extend(data, so_far)` begins at 0."""

    name: str
    extend: Callable[[bytes, int], int]
    expected: int


@dataclass(frozen=True)
class Opened:
    """A reply whose headers have been read and whose body has not."""

    size_bytes: int
    """Of the whole object, also where only a span of it was asked for."""
    version: str
    body: Body
    checksum: Checksum | None = None


@dataclass(frozen=True)
class Span:
    start: int
    stop: int

    @property
    def http_range(self) -> str:
        """https://www.rfc-editor.org/rfc/rfc9110#section-14.1.2: both ends are inside."""
        return f"bytes={self.start}-{self.stop - 1}"


class Source(Protocol):
    """One object, as a store reaches it."""

    @property
    def where(self) -> str: ...

    def open(self, span: Span | None, *, version: str | None) -> Opened:
        """A reply to a GET, in this store's own errors; ObjectChangedError where the object is no longer that version."""
        ...

    def errors(self) -> AbstractContextManager[object]:
        """Turns what goes wrong while a body is read into this store's own errors."""
        ...


@dataclass(frozen=True)
class First:
    """The object's beginning, and what its reply said of the whole."""

    data: bytes
    opened: Opened
    """Its body is open still where nothing of it has been read."""


@dataclass
class Sum:
    """The checksum of what was handed out so far."""

    checksum: Checksum | None
    found: int = 0

    def add(self, data: bytes) -> None:
        if self.checksum:
            self.found = self.checksum.extend(data, self.found)

    def refuse_damaged(self, *, where: str) -> None:
        if self.checksum and self.found != self.checksum.expected:
            raise TransientStoreError(
                f"what arrived does not have the {self.checksum.name} that the store keeps for this object.",
                where=where,
                next_step="If it happens again, the object is damaged in the store.",
            )


@dataclass(frozen=True)
class RangedReader:
    range_bytes: int = RANGE_BYTES
    in_one_bytes: int = IN_ONE_BYTES
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=4, cap_s=5.0))
    buffers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(BUFFERS))

    def read(self, source: Source) -> bytes:
        return b"".join(self.pieces(source))

    def read_to(self, source: Source, path: Path, *, on_chunk: Callable[[bytes], None] | None) -> None:
        with closing(self.pieces(source)) as pieces, scratch_errors(path), path.open("wb") as target:
            for piece in pieces:
                target.write(piece)
                if on_chunk is not None:
                    on_chunk(piece)

    def pieces(self, source: Source) -> Generator[bytes, None, None]:
        """The object's bytes in order, each once. A small object is one GET, checked before it is handed out.

        TransientStoreError after the last byte where the whole does not have its checksum: start again with a new hasher.
        """
        first = with_retries(lambda: self._first(source), transient=(TransientStoreError,), backoff=self.backoff)
        if len(first.data) == first.opened.size_bytes:
            yield from _handed(first.data)
            return
        total = Sum(first.opened.checksum)
        with closing(self._all(source, first)) as pieces:
            for piece in pieces:
                total.add(piece)
                yield piece
        total.refuse_damaged(where=source.where)

    def _first(self, source: Source) -> First:
        """Asks for no range: the headers then tell size, version and checksum, and an empty object is no error (416)."""
        opened = source.open(None, version=None)
        if self.range_bytes < opened.size_bytes <= self.in_one_bytes:
            return First(b"", opened)
        buffer = bytearray(min(opened.size_bytes, self.range_bytes))
        _fill(memoryview(buffer), opened.body, source=source)
        data = bytes(buffer)
        if len(data) == opened.size_bytes:
            whole = Sum(opened.checksum)
            whole.add(data)
            whole.refuse_damaged(where=source.where)
        return First(data, opened)

    def _all(self, source: Source, first: First) -> Generator[bytes, None, None]:
        at, size_bytes = 0, first.opened.size_bytes
        with closing(_handed(first.data) if first.data else _in_one(source, first.opened)) as begun:
            for piece in begun:
                at += len(piece)
                yield piece
        if at < size_bytes:
            with closing(self._in_order(source, spans=self._spans(at, size_bytes), version=first.opened.version)) as rest:
                yield from rest

    def _spans(self, start: int, stop: int) -> deque[Span]:
        return deque(Span(at, min(at + self.range_bytes, stop)) for at in range(start, stop, self.range_bytes))

    def _in_order(self, source: Source, *, spans: deque[Span], version: str) -> Generator[bytes, None, None]:
        """A range is under way, or waits to be taken, only while it holds a buffer. Only a reader that has none waits for one,
        so some reader always goes on. The memory of a buffer is used again: so much given back and taken anew by so many threads
        would lie in pieces, and more than twice of it be held."""
        under_way: deque[tuple[Future[int], bytearray]] = deque()
        free: list[bytearray] = []
        stopped = threading.Event()
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="range")
        try:
            while spans or under_way:
                while spans and len(under_way) < AT_ONCE and self.buffers.acquire(blocking=not under_way):
                    span, buffer = spans.popleft(), free.pop() if free else bytearray(self.range_bytes)
                    fetch = pool.submit(self._range, source, span=span, version=version, into=buffer, stopped=stopped)
                    under_way.append((fetch, buffer))
                future, buffer = under_way[0]
                yield from _handed(memoryview(buffer)[: future.result()])
                under_way.popleft()
                free.append(buffer)
                self.buffers.release()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            for _ in under_way:
                self.buffers.release()

    def _range(self, source: Source, *, span: Span, version: str, into: bytearray, stopped: threading.Event) -> int:
        def attempt() -> int:
            if stopped.is_set():
                raise CancelledError
            opened = source.open(span, version=version)
            _fill(memoryview(into)[: span.stop - span.start], opened.body, source=source)
            if opened.version != version:  # not every server honours the condition
                raise ObjectChangedError("the object was replaced while it was being read.", where=source.where)
            return span.stop - span.start

        return with_retries(attempt, transient=(TransientStoreError,), backoff=self.backoff)


def _fill(data: memoryview, body: Body, *, source: Source) -> None:
    """So many bytes of the body, the rest of which is never asked for."""
    at = 0
    with source.errors(), closing(body):
        while at < len(data) and (piece := body.read(min(PIECE_BYTES, len(data) - at))):
            data[at : at + len(piece)] = piece
            at += len(piece)
    if at < len(data):
        raise TransientStoreError(f"the connection ended {len(data) - at} bytes short of {len(data)}.", where=source.where)


def _handed(data: bytes | memoryview) -> Generator[bytes, None, None]:
    for at in range(0, len(data), HANDED_BYTES):
        yield bytes(memoryview(data)[at : at + HANDED_BYTES])


def _in_one(source: Source, opened: Opened) -> Generator[bytes, None, None]:
    """The whole body, or as much of it as came before the connection broke."""
    left = opened.size_bytes
    with closing(opened.body), suppress(TransientStoreError):
        while left and (piece := _piece(opened.body, min(HANDED_BYTES, left), source=source)):
            left -= len(piece)
            yield piece


def _piece(body: Body, size: int, *, source: Source) -> bytes:
    with source.errors():
        return body.read(size)

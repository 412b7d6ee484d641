"""The data index: which pictures a run trains on, in which order; and the scan that makes it before step 0.

Every picture is decoded once, in parallel, so that no picture surprises the run at step 14000. The index is stored with
the run and its hash is part of the run's identity.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdjob.core.errors import DataError
from sdjob.core.log import Log
from sdjob.data.columns import Columns
from sdjob.data.entries import Entry
from sdjob.data.images import PictureError, decode
from sdjob.data.lines import Lines, LineWriter, Picked, columns_of, from_jsonl, to_jsonl
from sdjob.data.reading import FileGoneError, read_bytes
from sdjob.data.records import Record

NAMED_PICTURES = 5  # as many bad pictures are named in a message
AHEAD = 4  # pictures of each worker in flight: enough to keep it busy, and few enough for memory


@dataclass(frozen=True)
class Index:
    entries: Sequence[Entry]
    """Lines, wherever there may be many."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def sources(self) -> npt.NDArray[np.int16]:
        """The number of each picture's source."""
        return self.entries.sources if isinstance(self.entries, Lines) else self.columns.sources

    @property
    def content(self) -> npt.NDArray[np.uint64]:
        return self.columns.content

    @property
    def widths(self) -> npt.NDArray[np.int32]:
        return self.columns.widths

    @property
    def heights(self) -> npt.NDArray[np.int32]:
        return self.columns.heights

    @cached_property
    def columns(self) -> Columns:
        return self.entries.columns if isinstance(self.entries, Lines) else columns_of(self.entries)

    @cached_property
    def lines(self) -> Lines:
        return self.entries if isinstance(self.entries, Lines) else Lines(self.to_jsonl())

    def of_source(self, number: int) -> "Index":
        """The pictures of one source, as if they were all."""
        chosen = np.flatnonzero(self.sources == number)
        return self if len(chosen) == len(self) else Index(Picked(self.entries, chosen))

    def to_jsonl(self) -> bytes:
        """The same bytes for the same entries, on any machine."""
        return to_jsonl(self.entries)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_jsonl()).hexdigest()

    @staticmethod
    def from_jsonl(data: bytes) -> "Index":
        """Raises DataError, naming the line, for anything that `to_jsonl` does not write."""
        return Index(from_jsonl(data))


@lru_cache(maxsize=1)
def read_index(path: Path) -> Index:
    """Of a process that trains: its file was written by this attempt, and never changes. The file stays a file: processes of one
    machine share what of it they look at."""
    with path.open("rb") as file:
        return Index(Lines(mmap(file.fileno(), 0, access=ACCESS_READ)))


def joined(indexes: Sequence[Index]) -> Index:
    """Those of several sources, in their order, as one."""
    if len(indexes) == 1:
        return indexes[0]
    writer = LineWriter(several=True)
    for number, index in enumerate(indexes):
        for entry in index.entries:
            writer.add(replace(entry, source=number))
    return Index(writer.lines())


@dataclass(frozen=True)
class BadPicture:
    id: str
    why: str


@dataclass(frozen=True)
class ScanResult:
    index: Index
    bad: tuple[BadPicture, ...]


def scan(
    folder: Path,
    *,
    records: Iterable[Record],
    workers: int,
    max_samples: int | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ScanResult:
    """The index of the good pictures in the order of `records`, and the bad ones: missing, undecodable, without a caption.

    With `max_samples` the scan ends at that many good ones, and takes few records more. `workers` threads decode (0: this
    one); the result does not depend on their number. `on_progress` is called here with the pictures done and those there are,
    where that is known beforehand.

    Raises StorageError or DeniedError where a file is there but cannot be read: the index must not depend on a bad moment.
    """
    num_records = len(records) if isinstance(records, Sized) else None
    good = LineWriter(several=False)
    bad: list[BadPicture] = []
    with closing(_examined(folder, records=records, workers=workers)) as results:
        for done, examined in enumerate(results, start=1):
            if isinstance(examined, Entry):
                good.add(examined)
            else:
                bad.append(examined)
            if on_progress:
                on_progress(done, num_records)
            if good.num_lines == max_samples:
                break
    return ScanResult(index=Index(good.lines()), bad=tuple(bad))


def check_bad_share(result: ScanResult, *, max_bad_share: float, log: Log) -> None:
    """Raises DataError where no picture is good or more than the allowed share is bad; else bad ones are a warning."""
    num_good, num_bad = len(result.index), len(result.bad)
    if not num_bad and num_good:
        return
    names = "; ".join(f"{picture.id} {picture.why}" for picture in result.bad[:NAMED_PICTURES])
    rest = f"; and {num_bad - NAMED_PICTURES} more" if num_bad > NAMED_PICTURES else ""
    what = f"{num_bad} of {num_bad + num_good} pictures cannot be used: {names}{rest}."
    if not num_good:
        raise DataError(what if num_bad else "there is no picture.", next_step="Nothing is left to train on: mend the data.")
    if num_bad / (num_bad + num_good) > max_bad_share:
        raise DataError(what, next_step=f"Mend or remove them, or raise data.max_bad_share, which is {max_bad_share:g}.")
    log.warning("bad_pictures", message=what, bad=num_bad, good=num_good, ids=[picture.id for picture in result.bad])


def _examined(folder: Path, *, records: Iterable[Record], workers: int) -> Generator[Entry | BadPicture]:
    """Results in the order of the records, whose iterator is closed at the end, where it can be."""
    iterator = iter(records)
    try:
        yield from _examined_by(workers, folder, iterator) if workers else (_examine(folder, record) for record in iterator)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def _examined_by(workers: int, folder: Path, records: Iterator[Record]) -> Generator[Entry | BadPicture]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scan")
    pending: deque[Future[Entry | BadPicture]] = deque()
    try:
        for record in records:
            pending.append(pool.submit(_examine, folder, record))
            if len(pending) > workers * AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _examine(folder: Path, record: Record) -> Entry | BadPicture:
    name = record.id.encode("utf-8", "backslashreplace").decode()
    if name != record.id:
        return BadPicture(id=name, why="has a name that is not UTF-8")
    if not record.captions:
        return BadPicture(id=name, why="has no caption")
    try:
        data = read_bytes(folder / record.id)
        picture = decode(data)
    except (FileGoneError, PictureError) as error:
        return BadPicture(id=name, why=error.what.rstrip("."))
    return Entry(
        id=record.id,
        sha256=hashlib.sha256(data).hexdigest(),
        width=picture.width,
        height=picture.height,
        captions=record.captions,
    )

"""Brings the pictures of all the job's sources to this machine, and makes the run's index of them."""

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from pathlib import Path

from sdjob.core.errors import DataError
from sdjob.core.retry import Backoff
from sdjob.data.gather import Lazily, Pictures, gather
from sdjob.data.index import Index, check_bad_share, joined, scan
from sdjob.data.records import Record
from sdjob.job.fetch import Here
from sdjob.job.pins import data_place
from sdjob.spec.job import JobSpec
from sdjob.spec.sources import DataSource, data_sources
from sdjob.store.base import ObjectMissingError, ObjectStore
from sdjob.store.open import open_store

INDEX_KEY = "data/index.jsonl"


@dataclass(frozen=True)
class StagedIndex:
    index: Index
    pictures: tuple[Path, ...] | None
    """Where they are, source by source, if they had to be gathered to make the index; else `stage_pictures` brings them, once
    they are needed."""


def stage_index(job: JobSpec, *, store: ObjectStore, may_write: bool, here: Here) -> StagedIndex:
    """The run's ordered index: the one that the first attempt wrote, or a scan of every picture."""
    try:
        return StagedIndex(_stored_index(store), pictures=None)
    except ObjectMissingError:
        gathered = [(source, _gathered(source, index=None, here=here)) for source in data_sources(job.data)]
    index = joined([_scan(pictures, source=source, job=job, here=here) for source, pictures in gathered])
    if may_write:
        store.write(INDEX_KEY, index.to_jsonl())
    return StagedIndex(index, tuple(pictures.folder for _, pictures in gathered))


def _stored_index(store: ObjectStore) -> Index:
    data, where = store.read(INDEX_KEY), f"{store.uri}/{INDEX_KEY}"
    try:
        return Index.from_jsonl(data)
    except DataError as error:
        then = "Delete it: the next attempt makes it anew, and goes on only if the data is what it was."
        raise DataError(f"the run's index is damaged: {error}", where=where, next_step=then) from error


def stage_pictures(job: JobSpec, *, index: Index, here: Here) -> tuple[Path, ...]:
    """A folder of each source, with every picture of the index, verified."""
    sources = enumerate(data_sources(job.data))
    return tuple(_gathered(source, index=index.of_source(number), here=here).folder for number, source in sources)


def _gathered(source: DataSource, *, index: Index | None, here: Here) -> Pictures:
    return gather(
        data_place(source),
        open_store=open_store,
        data=source,
        scratch=here.scratch,
        index=index,
        check_stop=here.check_stop,
        log=here.log,
        backoff=Backoff(clock=here.clock),
    )


def _told(records: Iterable[Record], *, source: DataSource) -> Iterable[Record]:
    """With their captions as they are trained."""
    if source.tells_as_found:
        return records

    def told() -> Iterator[Record]:
        return (replace(record, captions=source.captions(record.captions)) for record in records)

    return list(told()) if isinstance(records, Sized) else Lazily(told)


def _scan(pictures: Pictures, *, source: DataSource, job: JobSpec, here: Here) -> Index:
    def on_progress(done: int, of: int | None) -> None:
        here.check_stop()
        here.log.progress(f"looking at pictures: {done}" + (f"/{of}" if of else ""))

    result = scan(
        pictures.folder,
        records=_told(pictures.records, source=source),
        workers=max(1, job.run.workers),
        max_samples=source.max_samples,
        on_progress=on_progress,
    )
    try:
        check_bad_share(result, max_bad_share=job.data.max_bad_share, log=here.log)
    except DataError as error:
        error.where = data_place(source).uri
        raise
    here.log.event("scanned", f"{len(result.index)} pictures, {len(result.bad)} left out", pictures=len(result.index))
    return result.index

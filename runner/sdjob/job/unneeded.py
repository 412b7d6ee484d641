"""Shards in a cache's place that nothing known there needs: neither this job, nor a checkpoint of a run that lies in the place.

Who shares the place as `run.cache` alone leaves no word of it there: a person must know, and what is deleted is encoded again.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.manifest import StoredFile
from sdjob.core.clock import Clock
from sdjob.core.log import Log
from sdjob.encodings.reader import read_table
from sdjob.encodings.shard import PLACE, ShardFile
from sdjob.job.encodings import TABLE
from sdjob.store.base import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Unneeded:
    place: str
    shards: tuple[ObjectInfo, ...]
    num_needed: int

    @property
    def size_bytes(self) -> int:
        return sum(info.size_bytes for info in self.shards)


def unneeded_shards(store: ObjectStore, *, needed: AbstractSet[str]) -> Unneeded:
    """Whatever is no shard is left alone."""
    found = {info: file for info in store.list(f"{PLACE}/") if (file := ShardFile.at(info.key)) is not None}
    shards = sorted((info for info, file in found.items() if file.name not in needed), key=lambda info: info.key)
    return Unneeded(store.uri, tuple(shards), len(found) - len(shards))


def trained_on(store: ObjectStore, *, folder: Path, clock: Clock, log: Log) -> set[str]:
    """The shards of every checkpoint that a run in this place could go on from; none where no run lies there.

    Raises UnsoundError where it cannot be known. `folder` is for what is fetched, a table of some KiB for each of them.
    """
    commits, tables = CommitLog(store, clock=clock, log=log), dict[str, StoredFile]()
    for commit in commits.replay().live:
        if (table := commits.manifest_of(commit).files.get(TABLE)) is not None:
            tables[table.blob] = table  # of many commits it is one
    names: set[str] = set()
    for table in tables.values():
        commits.blobs.download(table, folder / TABLE)
        names |= read_table(folder / TABLE).keys()
    return names

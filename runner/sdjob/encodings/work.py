"""The pass that computes shards, the same for all backends: reads, batches, has a backend encode, writes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdjob.data.index import Index, read_index
from sdjob.data.prefetch import Prefetch
from sdjob.data.samples import SampleSource
from sdjob.data.targets import settled_crop
from sdjob.encodings.plan import Plan, Shard, make_plan
from sdjob.encodings.reader import Encodings, read_table
from sdjob.encodings.shard import Rows, ShardFile, write_shard
from sdjob.spec.task import EncodeTask, TrainTask

Item = TypeVar("Item")

LOOK_S = 0.05  # how often a process that waits for the others' shards looks for the table


class Encoder(Protocol):
    """The frozen encoders on this process's devices."""

    @property
    def devices(self) -> int:
        """As many batches are encoded at once."""
        ...

    def pictures(self, pixels_BCHW: NDArray[np.float32]) -> dict[str, Rows]: ...

    def captions(self, captions: Sequence[str]) -> dict[str, Rows]: ...


@dataclass(frozen=True)
class Pass:
    """One process's part of the work."""

    task: TrainTask
    encode: EncodeTask
    index: Index
    plan: Plan

    @classmethod
    def of(cls, task: TrainTask) -> "Pass | None":
        """None where the encoders run at every step."""
        if task.encode is None:
            return None
        index = read_index(task.index)
        return cls(task, task.encode, index, make_plan(index, job=task.job, model_hashes=task.encode.model_hashes))

    def missing(self, rank: int) -> list[Shard]:
        wanted = set(self.encode.missing[rank])
        return [shard for shard in self.plan.shards if shard.name in wanted]

    def compute(self, encoder: Encoder, *, rank: int, on_shard: Callable[[ShardFile], None]) -> None:
        """This process's missing shards, one after the other; each is in its place before it is told of."""
        aside = self.task.scratch / f"encodings-{rank}"
        aside.mkdir(exist_ok=True)
        for shard in self.missing(rank):
            batches = self._pictures(shard, encoder) if shard.group.kind == "pictures" else self._captions(shard, encoder)
            rows = joined(list(batches), num_entries=len(shard.members_E))
            on_shard(write_shard(rows, name=shard.name, folder=self.encode.folder, aside=aside))

    def wait(self) -> Encodings:
        """Until the parent has all shards here: its word is the table. A parent that died takes this process with it."""
        while not self.encode.table.exists():
            time.sleep(LOOK_S)
        return Encodings.of(self.plan, folder=self.encode.folder, sha256_by_shard=read_table(self.encode.table))

    def _pictures(self, shard: Shard, encoder: Encoder) -> Iterator[dict[str, Rows]]:
        """Windows are read ahead of the encoder, in threads."""
        job, members, target = self.task.job, shard.members_E.tolist(), shard.group.target
        assert target is not None, "a group of pictures has one"
        source = SampleSource(self.index, self.task.folders, data=job.data, seed=job.train.seed)
        at_once, workers = shard.group.batch * encoder.devices, job.run.workers
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:

            def window(number: int) -> NDArray[np.float32]:
                entry = self.index.entries[number]
                crop = settled_crop(entry, target=target, data=job.data)
                assert crop is not None, "only pictures with one window are encoded beforehand"
                return source.pixels(entry, crop=crop, flipped=shard.group.flipped)

            def read(number: int) -> NDArray[np.float32]:
                windows = list(pool.map(window, members[number * at_once : (number + 1) * at_once]))
                return np.stack(filled(windows, size=at_once))

            with Prefetch(read, start=0, stop=-(-len(members) // at_once), depth=2 if workers else 0) as batches:
                yield from map(encoder.pictures, batches)

    def _captions(self, shard: Shard, encoder: Encoder) -> Iterator[dict[str, Rows]]:
        assert self.plan.captions is not None, "a group of captions is theirs"
        texts, at_once = self.plan.captions.texts(shard.members_E), shard.group.batch * encoder.devices
        for first in range(0, len(texts), at_once):
            yield encoder.captions(filled(texts[first : first + at_once], size=at_once))


def filled(entries: Sequence[Item], *, size: int) -> list[Item]:
    """A whole batch: the last entry is repeated."""
    return [*entries, *[entries[-1]] * (size - len(entries))]


def joined(batches: Sequence[Mapping[str, Rows]], *, num_entries: int) -> dict[str, Rows]:
    """Of a shard's batches, without what only filled the last one."""
    return {
        name: Rows(first.dtype, np.concatenate([batch[name].values_E for batch in batches])[:num_entries])
        for name, first in batches[0].items()
    }

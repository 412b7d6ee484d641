"""The held-out pictures as batches of one size, each picture at a few fixed levels of noise; nothing about them is drawn anew.

A row is a picture at a level. The rows of a size are cut into batches; the last of them is filled up with rows that do not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sdjob.data.batch_order import BatchOrder, pools_of
from sdjob.data.buckets import TargetSize
from sdjob.data.crops import center_crop
from sdjob.data.index import Index
from sdjob.data.roles import Numbers, roles_of
from sdjob.data.samples import Chosen, SampleSource
from sdjob.spec.data import DataSpec


@dataclass(frozen=True)
class HeldOutRow:
    picture: int
    """Its number in the index."""

    level: int
    """Of noise."""

    counts: bool


@dataclass(frozen=True)
class HeldOutOrder:
    """A BatchOrder whose steps are the batches of one computation."""

    pools: Mapping[TargetSize, Numbers]
    """The held-out pictures of each size; none is empty."""

    num_levels: int
    global_batch: int

    @property
    def num_rows(self) -> int:
        return sum(self._rows_of_sizes)

    @property
    def num_batches(self) -> int:
        return len(self._batches)

    def size(self, step: int) -> TargetSize:
        return self._batches[step][0]

    def picture(self, step: int, index_in_batch: int) -> int:
        return self.row(step, index_in_batch).picture

    def row(self, step: int, index_in_batch: int) -> HeldOutRow:
        size, first = self._batches[step]
        pool, number = self.pools[size], first + index_in_batch
        picture, level = divmod(min(number, len(pool) * self.num_levels - 1), self.num_levels)
        return HeldOutRow(int(pool[picture]), level, counts=number < len(pool) * self.num_levels)

    def first_steps(self, start: int) -> Mapping[TargetSize, int]:
        found: dict[TargetSize, int] = {}
        for step in range(start, self.num_batches):
            found.setdefault(self.size(step), step)
        return found

    @property
    def _rows_of_sizes(self) -> list[int]:
        return [len(pool) * self.num_levels for pool in self.pools.values()]

    @cached_property
    def _batches(self) -> list[tuple[TargetSize, int]]:
        """The size of each batch, and its first row among those of the size."""
        rows = zip(self.pools, self._rows_of_sizes, strict=True)
        return [(size, first) for size, num_rows in rows for first in range(0, num_rows, self.global_batch)]


def held_out_order(index: Index, *, data: DataSpec, num_levels: int, global_batch: int) -> HeldOutOrder:
    pools = pools_of(index, numbers=roles_of(index, data=data).held_out, data=data)
    return HeldOutOrder(pools, num_levels, global_batch)


@dataclass(frozen=True)
class HeldOutSource(SampleSource):
    """The same pixels and captions at every computation: the middle of each picture, and its first caption."""

    held_out: HeldOutOrder = field(kw_only=True)

    def order(self, global_batch: int) -> BatchOrder:
        assert global_batch == self.held_out.global_batch
        return self.held_out

    def chosen(self, step: int, index_in_batch: int, *, global_batch: int) -> Chosen:
        order = self.order(global_batch)
        number, target = order.picture(step, index_in_batch), order.size(step)
        entry = self.index.entries[number]
        crop = center_crop(width=entry.width, height=entry.height, target_width=target.width, target_height=target.height)
        return Chosen(number, entry, caption_choice=0, crop=crop, flipped=False)

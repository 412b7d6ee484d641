"""Which picture stands at a place of a batch, and in which size: with buckets a batch has one size, without them the job has.

With buckets every size has an endless stream of its own, as `order` has it, cut into batches from its beginning. Epoch e of the
run has those batches that end within the first e + 1 passes over their size's pictures, and did not within the first e: what a
pass leaves over carries over to the next one. Their order is a permutation of (seed, epoch). So a step's batch is counted out.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sdjob.core.streams import stream
from sdjob.data.buckets import TargetSize, assigned, bucket_sizes
from sdjob.data.index import Index
from sdjob.data.order import EPOCHS_AT_HAND, ORDER, picture_at
from sdjob.data.roles import Numbers, Roles, roles_of
from sdjob.spec.data import DataSpec
from sdjob.spec.sources import prior_source

PRIOR = "prior order"


class BatchOrder(Protocol):
    """Any number of threads may ask it."""

    def size(self, step: int) -> TargetSize:
        """Of all pictures of a step."""
        ...

    def picture(self, step: int, index_in_batch: int) -> int:
        """Its number in the index; from `global_batch` on that of a prior picture."""
        ...

    def first_steps(self, start: int) -> Mapping[TargetSize, int]:
        """Of each size the first step from `start` on."""
        ...


@dataclass(frozen=True)
class PlainOrder:
    """All pictures in one size."""

    numbers: Numbers
    only_size: TargetSize
    prior: Numbers
    seed: int
    global_batch: int

    def size(self, step: int) -> TargetSize:  # noqa: ARG002 - BatchOrder's form
        return self.only_size

    def picture(self, step: int, index_in_batch: int) -> int:
        beside, place = divmod(index_in_batch, self.global_batch)
        pool, name = (self.prior, PRIOR) if beside else (self.numbers, ORDER)
        return picture_of(pool, batch=step, place=place, order=self, name=name)

    def first_steps(self, start: int) -> Mapping[TargetSize, int]:
        return {self.only_size: start}


@dataclass(frozen=True)
class BucketOrder:
    pools: Mapping[TargetSize, Numbers]
    """The pictures of each size; none is empty. Sorted by size."""

    prior: Mapping[TargetSize, Numbers]
    """The prior pictures for each of these sizes."""

    seed: int
    global_batch: int

    def size(self, step: int) -> TargetSize:
        return self.sizes[self._batch(step)[0]]

    def picture(self, step: int, index_in_batch: int) -> int:
        bucket, number = self._batch(step)
        size = self.sizes[bucket]
        beside, place = divmod(index_in_batch, self.global_batch)
        pool, name = (self.prior[size], PRIOR) if beside else (self.pools[size], ORDER)
        return picture_of(pool, batch=number, place=place, order=self, name=f"{name} {size.width}x{size.height}")

    def first_steps(self, start: int) -> Mapping[TargetSize, int]:
        return {size: self._first_step(bucket, start=start) for bucket, size in enumerate(self.sizes)}

    def _first_step(self, bucket: int, *, start: int) -> int:
        """In the epoch of `start`, or in the next one that has a batch of this size."""
        epoch, count = self._epoch(start), self._counts[bucket]
        batches = (epoch + 1) * count // self.global_batch + 1
        later = math.ceil(Fraction(batches * self.global_batch, count)) - 1
        for candidate in (epoch, later):
            before = self._num_batches(candidate)
            places = np.flatnonzero(self._order_of(candidate)[:, 0] == bucket) + before
            if (places >= start).any():
                return int(places[places >= start][0])
        raise AssertionError("a size with pictures has batches")

    @cached_property
    def sizes(self) -> tuple[TargetSize, ...]:
        return tuple(self.pools)

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return tuple(len(pool) for pool in self.pools.values())

    def _batch(self, step: int) -> tuple[int, int]:
        """(the size's number, the batch's number in the stream of that size)"""
        epoch = self._epoch(step)
        bucket, number = self._order_of(epoch)[step - self._num_batches(epoch)].tolist()
        return bucket, number

    def _epoch(self, step: int) -> int:
        """The last one that begins at this step or before; those that have no batch of their own begin where the next does."""
        first = step * self.global_batch // sum(self._counts) + 1
        # In as many passes all pictures together make `step` batches; what each size holds back is less than a batch of each.
        late = len(self._counts) * self.global_batch // sum(self._counts) + 2
        return first - 1 + bisect_right(range(first, first + late), step, key=self._num_batches)

    def _num_batches(self, epochs: int) -> int:
        """Whole batches in the first so many passes over each size's pictures."""
        return sum(epochs * count // self.global_batch for count in self._counts)

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        return _batches(self.seed, epoch, self._counts, self.global_batch)


@lru_cache(maxsize=EPOCHS_AT_HAND)
def _batches(seed: int, epoch: int, counts: tuple[int, ...], global_batch: int) -> npt.NDArray[np.int64]:
    """(batches of the epoch, 2), in their order: the size's number and the batch's in that size's stream."""
    spans = [(epoch * count // global_batch, (epoch + 1) * count // global_batch) for count in counts]
    buckets = np.repeat(np.arange(len(counts)), [after - first for first, after in spans])
    numbers = np.concatenate([np.arange(first, after) for first, after in spans])
    return stream(seed, "bucket order", epoch).permutation(np.column_stack((buckets, numbers)))


def picture_of(pool: Numbers, *, batch: int, place: int, order: PlainOrder | BucketOrder, name: str) -> int:
    position = batch * order.global_batch + place
    return int(pool[picture_at(position, num_pictures=len(pool), seed=order.seed, name=name)])


def order_of(index: Index, *, roles: Roles, data: DataSpec, seed: int, global_batch: int) -> BatchOrder:
    if data.buckets is None:
        return PlainOrder(roles.train, bucket_sizes(data)[0], roles.prior, seed, global_batch)
    pools = pools_of(index, numbers=roles.train, data=data)
    return BucketOrder(pools, prior_beside(pools, index=index, roles=roles, data=data), seed, global_batch)


def prior_beside(sizes: Iterable[TargetSize], *, index: Index, roles: Roles, data: DataSpec) -> Mapping[TargetSize, Numbers]:
    """The prior pictures for each of these sizes: those of that size; where there is none, all, which are cropped to it."""
    prior = pools_of(index, numbers=roles.prior, data=data)
    return {size: prior.get(size, roles.prior) for size in sizes}


def pictures_by_size(index: Index, *, data: DataSpec) -> Mapping[TargetSize, Numbers]:
    """The pictures that are asked for in each size, in the order of the index; some in several."""
    if data.buckets is None or data.prior is None:
        return pools_of(index, numbers=np.arange(len(index)), data=data)
    roles = roles_of(index, data=data)
    own = pools_of(index, numbers=np.flatnonzero(index.sources != prior_source(data)), data=data)
    trained = pools_of(index, numbers=roles.train, data=data)
    beside = prior_beside(trained, index=index, roles=roles, data=data)
    return {size: np.union1d(numbers, beside.get(size, roles.prior[:0])) for size, numbers in own.items()}


def pools_of(index: Index, *, numbers: Numbers, data: DataSpec) -> Mapping[TargetSize, Numbers]:
    """The pictures of each size that any of them has, in the order of `numbers`."""
    found = assigned(index.widths[numbers], index.heights[numbers], data=data)
    sizes = bucket_sizes(data)
    return {sizes[number]: numbers[found == number] for number in np.unique(found)}

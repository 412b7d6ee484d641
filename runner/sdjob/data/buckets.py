"""Aspect-ratio buckets: the sizes that pictures are trained in, and which of them a picture has. Pure.

A picture has one target size for the whole run, a function of its own size and of the job's `data` alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sdjob.spec.data import DataSpec

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, order=True)
class TargetSize:
    """In pixels."""

    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), as arrays have it."""
        return self.height, self.width

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def bucket_sizes(data: DataSpec) -> tuple[TargetSize, ...]:
    """Every size that this job may train in, sorted; without buckets the resolution alone.

    Of each width the largest height within the area of `resolution`, and the same turned by a quarter: the list of
    https://github.com/kohya-ss/sd-scripts, by which buckets are known (make_bucket_resolutions in its library/model_util.py).
    """
    resolution, buckets = data.resolution, data.buckets
    if buckets is None:
        return (TargetSize(resolution.width, resolution.height),)
    return _sizes(resolution.width * resolution.height, buckets.step, buckets.min, buckets.max)


@lru_cache
def _sizes(area: int, step: int, least: int, most: int) -> tuple[TargetSize, ...]:
    square = math.isqrt(area) // step * step
    found = {TargetSize(square, square)}
    for side in range(least, most + 1, step):
        other = min(most, area // side // step * step)
        if other >= least:
            found |= {TargetSize(side, other), TargetSize(other, side)}
    return tuple(sorted(found))


def nearest_size(*, width: int, height: int, data: DataSpec) -> TargetSize:
    """The size in which a picture of these pixels is trained: that of which the crop takes least; of equals the first."""

    def kept(size: TargetSize) -> float:
        across, down = float(width * size.height), float(height * size.width)
        return min(across, down) / max(across, down)

    return max(bucket_sizes(data), key=kept)  # the first of equals


def assigned(widths: Integers, heights: Integers, *, data: DataSpec) -> npt.NDArray[np.intp]:
    """For many pictures the number of each one's target size in `bucket_sizes`."""
    return _best(widths, heights, sizes=bucket_sizes(data))


def cropped_share(widths: Integers, heights: Integers, *, target: TargetSize) -> float:
    """The share of the pictures' pixels that crops take away where all have one target; the mean over the pictures."""
    return float(1 - _kept(widths, heights, target=target).mean())


def cropped_share_of(widths: Integers, heights: Integers, *, numbers: npt.NDArray[np.intp], sizes: Sequence[TargetSize]) -> float:
    """The same where each has that of these sizes which `numbers` says."""
    across, down = (np.array([getattr(size, side) for size in sizes], np.float64) for side in ("width", "height"))
    return float(1 - _kept_of(widths * down[numbers], heights * across[numbers]).mean())


def num_of_each(numbers: npt.NDArray[np.intp], *, sizes: Sequence[TargetSize]) -> Mapping[TargetSize, int]:
    """How many pictures have each target size; only those that any has."""
    counts = np.bincount(numbers, minlength=len(sizes)).tolist()
    return {size: count for size, count in zip(sizes, counts, strict=True) if count}


def _best(widths: Integers, heights: Integers, *, sizes: Sequence[TargetSize]) -> npt.NDArray[np.intp]:
    """TargetSize after size, so that a million pictures need little memory."""
    best = np.zeros(len(widths), dtype=np.intp)
    most = np.full(len(widths), -1.0)
    for number, size in enumerate(sizes):
        kept = _kept(widths, heights, target=size)
        better = kept > most
        best[better], most[better] = number, kept[better]
    return best


def _kept(widths: Integers, heights: Integers, *, target: TargetSize) -> npt.NDArray[np.float64]:
    return _kept_of(widths * np.float64(target.height), heights * np.float64(target.width))


def _kept_of(across: npt.NDArray[np.float64], down: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of a picture that stays where it is scaled to cover its target: the one ratio of sides over the other.

    Both are whole numbers below 2^53 and so exact, and IEEE division is rounded in one way: the same on every machine.
    """
    return np.minimum(across, down) / np.maximum(across, down)

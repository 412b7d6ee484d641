"""The order of samples: one endless stream of positions, each epoch a permutation of the pictures.

Position p = step x global_batch + i is picture permutation(seed, p // N)[p % N]. So a batch may span two epochs, none is
short, and any step is found without walking there.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sdjob.core.streams import stream

# A step and those drawn ahead of it span two epochs of a large data set; small ones span more and are cheap to permute anew.
EPOCHS_AT_HAND = 4
# One for each bucket, and those of prior pictures.
STREAMS_AT_HAND = 256
ORDER = "order"


def picture_at(position: int, *, num_pictures: int, seed: int, name: str = ORDER) -> int:
    """The picture's number among `num_pictures`, in the stream of this name. Safe to call from any number of threads."""
    epoch, place = divmod(position, num_pictures)
    return int(permutation(seed, epoch, num_pictures, name=name)[place])


def total_steps(epochs: float, *, num_pictures: int, global_batch: int) -> int:
    """ceil(epochs x N / global_batch), of the number as it is written: 0.1 is a tenth, not the binary number above it."""
    return math.ceil(Fraction(str(epochs)) * num_pictures / global_batch)


def permutation(seed: int, epoch: int, num: int, *, name: str) -> npt.NDArray[np.int64]:
    return _permutations(name)(seed, epoch, num)


@lru_cache(maxsize=STREAMS_AT_HAND)
def _permutations(name: str) -> Callable[[int, int, int], npt.NDArray[np.int64]]:
    """Each stream keeps its own: buckets together have no more pictures than a data set without them."""

    @lru_cache(maxsize=EPOCHS_AT_HAND)
    def of_epoch(seed: int, epoch: int, num: int) -> npt.NDArray[np.int64]:
        return stream(seed, name, epoch).permutation(num)

    return of_epoch

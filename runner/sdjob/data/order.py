"""The order of samples: one endless stream of positions, each epoch a permutation of the pictures.

Position p = step x global_batch + i is picture permutation(seed, p // N)[p % N]. So a batch may span two epochs, none is
short, and any step is found without walking there.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sdjob.core.streams import stream

# A step and those drawn ahead of it span two epochs of a large data set; small ones span more and are cheap to permute anew.
EPOCHS_AT_HAND = 4


def picture_at(position: int, *, num_pictures: int, seed: int) -> int:
    """The picture's number in the index. Safe to call from any number of threads."""
    epoch, place = divmod(position, num_pictures)
    return int(_permutation(seed, epoch, num_pictures)[place])


def total_steps(epochs: float, *, num_pictures: int, global_batch: int) -> int:
    """ceil(epochs x N / global_batch), of the number as it is written: 0.1 is a tenth, not the binary number above it."""
    return math.ceil(Fraction(str(epochs)) * num_pictures / global_batch)


@lru_cache(maxsize=EPOCHS_AT_HAND)
def _permutation(seed: int, epoch: int, num_pictures: int) -> npt.NDArray[np.int64]:
    return stream(seed, "order", epoch).permutation(num_pictures)

"""Counter-based random streams: every draw of a run is a pure function of (seed, stream name, counters).

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a key and a counter into bits with
no state to carry: so no generator state is ever saved, and any step can be drawn first, on any machine, in any order.
"""

import hashlib

import numpy as np
import numpy.typing as npt

WORD = 2**64


def stream(seed: int, name: str, *counters: int) -> np.random.Generator:
    """A generator for one purpose at one place of a run, such as `stream(seed, "noise", step, index)`.

    At most three counters of 64 bits; the lowest word of Philox's counter is left to the generator itself, which may
    draw 2^64 blocks before it would meet its neighbour.
    """
    if len(counters) > 3:
        raise ValueError(f"a stream has at most three counters, not {len(counters)}")
    name_key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    counter = [0, *counters, *([0] * (3 - len(counters)))]
    return np.random.Generator(np.random.Philox(key=words(seed, name_key), counter=words(*counter)))


def words(*values: int) -> npt.NDArray[np.uint64]:
    """Given as an array: of a list numpy makes float64, which holds 53 bits, as soon as one value has the 64th."""
    return np.array([value % WORD for value in values], dtype=np.uint64)

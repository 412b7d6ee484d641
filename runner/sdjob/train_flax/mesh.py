"""Which device holds what: every device takes its rows of a batch, and its part of every large parameter and moment.

The compiler puts in what the devices then have to tell each other (https://docs.jax.dev/en/latest/notebooks/Distributed_arrays_and_automatic_parallelization.html).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

AXES = ("data", "fsdp")
# Below 64 Ki elements a tensor is whole everywhere: to gather it would take longer than it saves memory.
SMALLEST_SPREAD = 64 * 1024

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Layout:
    mesh: Mesh

    @classmethod
    def of_all_devices(cls) -> Self:
        """Parameters are spread over the devices of a host, whose links are fast, and repeated from host to host."""
        return cls.of_hosts(jax.devices(), num_hosts=jax.process_count())

    @classmethod
    def of_hosts(cls, devices: Sequence[Any], *, num_hosts: int) -> Self:
        """`devices` host after host."""
        return cls(Mesh(np.array(devices).reshape(num_hosts, -1), AXES))

    @property
    def whole(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """Of a batch (M, B, ...): B is divided over all devices, process after process."""
        return NamedSharding(self.mesh, PartitionSpec(None, AXES))

    def replicated(self, tree: Tree) -> Tree:
        return jax.device_put(tree, self.whole)

    def spread(self, tree: Tree) -> Tree:
        """Parameters, moments and averages: each tensor by itself, so that its moments lie where it does."""
        return jax.tree.map(lambda array: jax.device_put(array, self.of_parameter(array.shape)), tree)

    def of_parameter(self, shape: tuple[int, ...]) -> NamedSharding:
        """Along its longest axis that the devices divide evenly; small or odd ones are whole everywhere."""
        parts = self.mesh.shape["fsdp"]
        even = [axis for axis, length in enumerate(shape) if length % parts == 0]
        if math.prod(shape) < SMALLEST_SPREAD or not even:
            return self.whole
        longest = max(even, key=lambda axis: shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*(("fsdp" if axis == longest else None) for axis in range(len(shape)))))

    def put_batch(self, batch: Tree) -> Tree:
        """(M, B, ...) of this process's rows."""

        def put(values: NDArray[Any]) -> jax.Array:
            return jax.make_array_from_process_local_data(self.rows, values)

        return jax.tree.map(put, batch)

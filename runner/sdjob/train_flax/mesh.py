"""Which device holds what: every device takes its rows of a batch, and its part of every large parameter and moment.

The compiler puts in what the devices then have to tell each other (https://docs.jax.dev/en/latest/notebooks/Distributed_arrays_and_automatic_parallelization.html).
"""

import math
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
        devices = np.array(jax.devices()).reshape(jax.process_count(), jax.local_device_count())
        return cls(Mesh(devices, AXES))

    def replicated(self, tree: Tree) -> Tree:
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def spread(self, tree: Tree) -> Tree:
        """Parameters, moments and averages: each tensor by itself, so that its moments lie where it does."""
        return jax.tree.map(lambda array: jax.device_put(array, self.of_parameter(array.shape)), tree)

    def of_parameter(self, shape: tuple[int, ...]) -> NamedSharding:
        """Along its longest axis that the devices divide evenly; small or odd ones are whole everywhere."""
        parts = self.mesh.shape["fsdp"]
        even = [axis for axis, length in enumerate(shape) if length % parts == 0]
        if math.prod(shape) < SMALLEST_SPREAD or not even:
            return NamedSharding(self.mesh, PartitionSpec())
        longest = max(even, key=lambda axis: shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*(("fsdp" if axis == longest else None) for axis in range(len(shape)))))

    def put_batch(self, batch: Tree) -> Tree:
        """(M, B, ...) of this process's rows: B is divided over all devices, process after process."""
        rows = NamedSharding(self.mesh, PartitionSpec(None, AXES))

        def put(values: NDArray[Any]) -> jax.Array:
            return jax.make_array_from_process_local_data(rows, values)

        return jax.tree.map(put, batch)

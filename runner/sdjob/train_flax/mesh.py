"""Which device holds what: every device takes its rows of a batch, and its part of every large parameter and moment.

The compiler puts in what the devices then have to tell each other (https://docs.jax.dev/en/latest/notebooks/Distributed_arrays_and_automatic_parallelization.html).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
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
    averages_on_host: bool = False
    """In the memory of the hosts, from which each device reads its own part."""

    @classmethod
    def of_all_devices(cls, *, averages_on_host: bool = False) -> Self:
        """Parameters are spread over the devices of a host, whose links are fast, and repeated from host to host."""
        return replace(cls.of_hosts(jax.devices(), num_hosts=jax.process_count()), averages_on_host=averages_on_host)

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

    def put_whole(self, name: str, values: NDArray[Any]) -> jax.Array:  # noqa: ARG002 - Put's form
        return placed(values, self.whole)

    def put_spread(self, name: str, values: NDArray[Any]) -> jax.Array:  # noqa: ARG002 - Put's form
        """A parameter or moment: each by itself, so that moments lie where their parameter does."""
        return placed(values, self.of_parameter(values.shape))

    def put_average(self, name: str, values: NDArray[Any]) -> jax.Array:  # noqa: ARG002 - Put's form
        return placed(values, self.of_average(values.shape))

    def of_parameter(self, shape: tuple[int, ...]) -> NamedSharding:
        """Along its longest axis that the devices divide evenly; small or odd ones are whole everywhere."""
        parts = self.mesh.shape["fsdp"]
        even = [axis for axis, length in enumerate(shape) if length % parts == 0]
        if math.prod(shape) < SMALLEST_SPREAD or not even:
            return self.whole
        longest = max(even, key=lambda axis: shape[axis])
        # As compiled programs spell it, without the axes behind: a step's arguments and results have one and the same.
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, "fsdp"))

    def of_average(self, shape: tuple[int, ...]) -> NamedSharding:
        spread = self.of_parameter(shape)
        return spread.with_memory_kind("pinned_host") if self.averages_on_host else spread

    def held(self, tensors: Tree) -> Tree:
        """Inside a compiled program: parameters and moments, where `put_spread` laid them."""
        return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, self.of_parameter(array.shape)), tensors)

    def brought(self, averages: Tree) -> Tree:
        """Inside a compiled program: averages from where `put_average` laid them to the devices."""
        if not self.averages_on_host:
            return averages
        return jax.tree.map(lambda array: jax.device_put(array, self.of_parameter(array.shape)), averages)

    def returned(self, averages: Tree) -> Tree:
        """And back."""
        if not self.averages_on_host:
            return self.held(averages)
        return jax.tree.map(lambda array: jax.device_put(array, self.of_average(array.shape)), averages)

    def put_batch(self, batch: Tree) -> Tree:
        """(M, B, ...) of this process's rows."""

        def put(values: NDArray[Any]) -> jax.Array:
            return jax.make_array_from_process_local_data(self.rows, values)

        return jax.tree.map(put, batch)

    def any_host(self, wanted: bool) -> Any:
        """Whether any process says so: true or false of all of them, to be read once the devices have come to it."""
        if jax.process_count() == 1:
            return wanted
        flags = NamedSharding(self.mesh, PartitionSpec(AXES))
        said = jax.make_array_from_callback((self.mesh.size,), flags, lambda _: np.array([wanted]))
        return any_of(said, whole=self.whole)

    def of_this_host(self) -> Self:
        return self if jax.process_count() == 1 else self.of_hosts(jax.local_devices(), num_hosts=1)

    def take(self, tree: Tree) -> Tree:
        """What stands on all hosts as this host's alone, on its devices. Each host has all of it, so that the others need not
        take part."""

        def own(array: jax.Array) -> jax.Array:
            assert isinstance(array.sharding, NamedSharding)
            here = array.sharding.memory_kind == "device"
            if here and jax.process_count() == 1:
                return array
            parts = [shard.data if here else jax.device_put(shard.data, shard.device) for shard in array.addressable_shards]
            return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(self.mesh, array.sharding.spec), parts)

        return jax.tree.map(own, tree)


def placed(values: NDArray[Any], sharding: NamedSharding) -> jax.Array:
    """Each device gets its own part of what every host holds: nothing is whole on a device that is not to be."""
    return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])


@partial(jax.jit, static_argnames=("whole",))
def any_of(said: jax.Array, *, whole: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(said.any(), whole)


def host_copy(array: jax.Array) -> NDArray[np.float32]:
    """A real copy of what this process's devices hold: on a CPU a plain fetch would share memory that the next step uses."""
    copied = np.empty(array.shape, np.float32)
    parts = {str(shard.index): shard for shard in array.addressable_shards}  # several devices may have the same
    for shard in parts.values():
        copied[shard.index] = np.asarray(shard.data)
    return copied


def peak_memory_mib() -> int | None:
    """Of this process's first device: the others have as much. A CPU does not tell."""
    figures = jax.local_devices()[0].memory_stats() or {}
    return figures["peak_bytes_in_use"] // 2**20 if "peak_bytes_in_use" in figures else None

"""The state of a run on flax, in and out of the same files that the torch trainer writes, in torch's names and layouts.

A checkpoint's folder holds weights.safetensors (float32 masters), optimizer.safetensors (`optimizer.m.NAME`,
`optimizer.v.NAME`), ema.safetensors (`ema.NAME`) where EMA is on, and state.json (scalars). So either backend resumes
the other's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import UnsoundError
from sdjob.diffusion.tensor_file import StoredTensor, read_tensors, write_tensors
from sdjob.train_flax.mesh import host_copy
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, from_file, put_on_default

Tensors = dict[str, Array]
"""By their names in a checkpoint, in our layout, float32."""

KINDS = ("optimizer.m.", "optimizer.v.", "ema.")
HostTensors = dict[str, NDArray[np.float32]]
Paths = Mapping[str, names.Path]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    parameters: Tensors
    first: Tensors
    """AdamW's mean of the gradients."""

    second: Tensors
    """And of their squares."""

    averages: Tensors | None
    """EMA, where it is on."""


def start_state(parameters: Tensors, *, ema: bool) -> TrainState:
    """Copies: a step uses the memory of its state again, and the model may keep what it was read with."""
    placed = {name: values.sharding for name, values in parameters.items()}
    where = TrainState(placed, placed, placed, placed if ema else None)  # type: ignore[arg-type]
    return jax.jit(partial(started, ema=ema), out_shardings=where)(parameters)


def started(parameters: Tensors, *, ema: bool) -> TrainState:
    return TrainState(
        parameters=jax.tree.map(jnp.copy, parameters),
        first=jax.tree.map(jnp.zeros_like, parameters),
        second=jax.tree.map(jnp.zeros_like, parameters),
        averages=jax.tree.map(jnp.copy, parameters) if ema else None,
    )


# ---- out -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostSnapshot:
    """Copies on the host, in our layout: the training may go on while another thread writes them."""

    files: dict[str, HostTensors]
    paths: Paths
    scalars: dict[str, Any]

    def write_into(self, folder: Path) -> None:
        for file, tensors in self.files.items():
            stored = {name: self._stored(name, values) for name, values in tensors.items()}
            write_tensors(folder / file, tensors=stored, metadata={"format": "pt"})
        (folder / "state.json").write_text(json.dumps(self.scalars, sort_keys=True), encoding="utf-8")

    def _stored(self, name: str, values: NDArray[np.float32]) -> StoredTensor:
        torchs = names.to_torch(self.paths[without_kind(name)], values)
        return StoredTensor("F32", torchs.shape, torchs.nbytes, torchs.tobytes())


def without_kind(name: str) -> str:
    """The name of the parameter that a moment or an average is of."""
    for kind in KINDS:
        name = name.removeprefix(kind)
    return name


def on_host(tensors: Tensors, *, prefix: str = "") -> HostTensors:
    return {prefix + name: host_copy(values) for name, values in tensors.items()}


def snapshot(state: TrainState, *, paths: Paths, count: int, scalars: Mapping[str, Any]) -> HostSnapshot:
    moments = {**on_host(state.first, prefix="optimizer.m."), **on_host(state.second, prefix="optimizer.v.")}
    files = {"weights.safetensors": on_host(state.parameters), "optimizer.safetensors": moments if count else {}}
    if state.averages is not None:
        files["ema.safetensors"] = on_host(state.averages, prefix="ema.")
    own = {"optimizer_count": float(count), "ema_count": count if state.averages is not None else None, "loss_scale": None}
    return HostSnapshot(files=files, paths=paths, scalars={**scalars, **own})


# ---- in ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restored:
    state: TrainState
    count: int


def restore(start: TrainState, folder: Path, *, paths: Paths, put: Put = put_on_default) -> Restored:
    """The state of a checkpoint that either backend wrote, in the place of `start`."""
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    stored = read_tensors(folder / "weights.safetensors")
    if stored.keys() != start.parameters.keys():
        example = sorted(stored.keys() ^ start.parameters.keys())[0]
        raise UnsoundError(f"the checkpoint's weights.safetensors does not hold the job's parameters (such as {example})")
    parameters = read_in(stored, paths=paths, put=put)
    moments = read_tensors(folder / "optimizer.safetensors")
    first, second = (read_in(moments, paths=paths, put=put, prefix=f"optimizer.{short}.") for short in "mv")
    averages = start.averages
    if averages is not None:
        averages = read_in(read_tensors(folder / "ema.safetensors"), paths=paths, put=put, prefix="ema.")
    # torch makes a parameter's moments at its first gradient: until then they are zero.
    state = TrainState(parameters, {**start.first, **first}, {**start.second, **second}, averages)
    return Restored(state, count=int(scalars["optimizer_count"]))


def read_in(stored: Mapping[str, StoredTensor], *, paths: Paths, put: Put, prefix: str = "") -> Tensors:
    found = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    return {name: put(name, names.from_torch(paths[name], from_file(tensor, dtype=np.float32))) for name, tensor in found.items()}

"""The state of a run on flax, in and out of the same files that the torch trainer writes, in torch's names and layouts.

A checkpoint's folder holds weights.safetensors (float32 masters), optimizer.safetensors (`optimizer.m.NAME`,
`optimizer.v.NAME`, or what else optimizer.py names), ema.safetensors (`ema.NAME`) where EMA is on, and state.json (scalars).
So either backend resumes the other's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import UnsoundError
from sdjob.diffusion.parts import stored_tensors
from sdjob.diffusion.tensor_file import StoredTensor, write_tensors
from sdjob.train_flax.mesh import Layout, host_copy
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, from_file, put_on_default
from sdjob.train_flax.optimizer import Optimizer, Slots, slot_from_torch, slot_to_torch

OPTIMIZER = "optimizer."

Tensors = dict[str, Array]
"""By their names in a checkpoint, in our layout, float32."""

HostTensors = dict[str, NDArray[np.float32]]
Paths = Mapping[str, names.Path]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    parameters: Tensors
    moments: dict[str, Tensors]
    """The optimizer's, by slot (m, v, row, col) and then by parameter."""

    averages: Tensors | None
    """EMA, where it is on."""


def start_state(
    parameters: Tensors, *, ema: bool, optimizer: Optimizer, paths: Paths, layout: Layout | None = None
) -> TrainState:
    """Copies: a step uses the memory of its state again, and the model may keep what it was read with."""
    make = partial(started, ema=ema, optimizer=optimizer, paths=paths)
    shapes = jax.eval_shape(make, parameters)
    if layout is None:
        return jax.jit(make)(parameters)
    return jax.jit(make, out_shardings=shardings_of(shapes, layout=layout))(parameters)


def shardings_of(state: TrainState, *, layout: Layout) -> Any:
    """In a state's form, of which only the shapes count."""
    spread = jax.tree.map(lambda array: layout.of_parameter(array.shape), state)
    return replace(spread, averages=jax.tree.map(lambda array: layout.of_average(array.shape), state.averages))


def started(parameters: Tensors, *, ema: bool, optimizer: Optimizer, paths: Paths) -> TrainState:
    return TrainState(
        parameters=jax.tree.map(jnp.copy, parameters),
        moments=by_slot({name: optimizer.started(values, path=paths[name]) for name, values in parameters.items()}),
        averages=jax.tree.map(jnp.copy, parameters) if ema else None,
    )


def by_slot(slots: Mapping[str, Slots]) -> dict[str, Tensors]:
    found: dict[str, Tensors] = {}
    for name, own in slots.items():
        for slot, values in own.items():
            found.setdefault(slot, {})[name] = values
    return found


def of_parameter(moments: Mapping[str, Tensors], name: str) -> Slots:
    return {slot: tensors[name] for slot, tensors in moments.items() if name in tensors}


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
        slot = name.split(".")[1] if name.startswith(OPTIMIZER) else ""
        torchs = slot_to_torch(slot, values, path=self.paths[without_kind(name)])
        return StoredTensor("F32", torchs.shape, torchs.nbytes, torchs.tobytes())


def without_kind(name: str) -> str:
    """The name of the parameter that a moment or an average is of."""
    return name.split(".", 2)[2] if name.startswith(OPTIMIZER) else name.removeprefix("ema.")


def on_host(tensors: Tensors, *, prefix: str = "") -> HostTensors:
    return {prefix + name: host_copy(values) for name, values in tensors.items()}


def snapshot(state: TrainState, *, paths: Paths, count: int, scalars: Mapping[str, Any]) -> HostSnapshot:
    moments: HostTensors = {}
    for slot, tensors in state.moments.items():
        moments |= on_host(tensors, prefix=f"{OPTIMIZER}{slot}.")
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


def restore(
    start: TrainState, folder: Path, *, paths: Paths, put: Put = put_on_default, put_average: Put | None = None
) -> Restored:
    """The state of a checkpoint that either backend wrote, in the place of `start`."""
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    stored = stored_tensors(folder, "weights")
    if stored.keys() != start.parameters.keys():
        example = sorted(stored.keys() ^ start.parameters.keys())[0]
        raise UnsoundError(f"the checkpoint's weights.safetensors does not hold the job's parameters (such as {example})")
    parameters = read_in(stored, paths=paths, put=put)
    moments = stored_tensors(folder, "optimizer")
    kept = {slot: read_in(moments, paths=paths, put=put, prefix=f"{OPTIMIZER}{slot}.", slot=slot) for slot in start.moments}
    averages = start.averages
    if averages is not None:
        averages = read_in(stored_tensors(folder, "ema"), paths=paths, put=put_average or put, prefix="ema.")
    # torch makes a parameter's moments at its first gradient: until then they are zero.
    state = TrainState(parameters, {slot: {**start.moments[slot], **own} for slot, own in kept.items()}, averages)
    return Restored(state, count=int(scalars["optimizer_count"]))


def read_in(stored: Mapping[str, StoredTensor], *, paths: Paths, put: Put, prefix: str = "", slot: str = "") -> Tensors:
    found = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    return {
        name: put(name, slot_from_torch(slot, from_file(tensor, dtype=np.float32), path=paths[name]))
        for name, tensor in found.items()
    }

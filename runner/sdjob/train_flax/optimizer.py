"""The optimizers of the flax trainer, parameter by parameter: the formulas and the checkpoint's names of the torch trainer's.

Axes: I inputs, O outputs; what is factored is seen as one matrix of outputs x all else, as in torch.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import UsageError
from sdjob.diffusion.adafactor import CLIP, DECAY, FLOOR
from sdjob.spec.train import OptimizerSpec
from sdjob.train_flax.models import names

Numbers = dict[str, Any]
Slots = dict[str, Array]
"""A parameter's moments by their names in a checkpoint."""


@dataclass(frozen=True)
class AdamW:
    """torch.optim.AdamW: decoupled weight decay (arXiv 1711.05101), then Adam's step."""

    betas: tuple[float, float]
    epsilon: float
    weight_decay: float

    def numbers(self, count: int) -> Numbers:
        """What changes from step to step, in float64 on the host; `count` updates with this one."""
        beta1, beta2 = self.betas
        return {
            "first_correction": np.float32(1.0 - beta1**count),
            "second_correction": np.float32(math.sqrt(1.0 - beta2**count)),
        }

    def started(self, values: Array, **_: Any) -> Slots:
        return {"m": jnp.zeros_like(values), "v": jnp.zeros_like(values)}

    def updated(
        self, values: Array, gradient: Array, slots: Slots, *, rate: Any, numbers: Numbers, **_: Any
    ) -> tuple[Array, Slots]:
        beta1, beta2 = self.betas
        first = slots["m"] + (gradient - slots["m"]) * (1.0 - beta1)
        second = slots["v"] * beta2 + jnp.square(gradient) * (1.0 - beta2)
        root = jnp.sqrt(second) / numbers["second_correction"] + self.epsilon
        decayed = values * (1.0 - rate * self.weight_decay)
        return decayed - rate / numbers["first_correction"] * first / root, {"m": first, "v": second}


@dataclass(frozen=True)
class Adafactor:
    """train_torch/adafactor.py in our layout, where a kernel's outputs are its last axis."""

    weight_decay: float

    def numbers(self, count: int) -> Numbers:
        return {"kept": np.float32(1.0 - math.pow(count, DECAY)), "new": np.float32(math.pow(count, DECAY))}

    def started(self, values: Array, *, path: names.Path) -> Slots:
        if values.ndim < 2:
            return {"v": jnp.zeros_like(values)}
        axis = output_axis(path)
        col = values.shape[:-1] if axis == -1 else values.shape[1:]
        return {"row": jnp.zeros((values.shape[axis],)), "col": jnp.zeros(col)}

    def updated(
        self, values: Array, gradient: Array, slots: Slots, *, rate: Any, numbers: Numbers, path: names.Path
    ) -> tuple[Array, Slots]:
        squares = jnp.square(gradient) + FLOOR
        means = {"v": squares} if values.ndim < 2 else factored(squares, axis=output_axis(path))
        after = {slot: slots[slot] * numbers["kept"] + mean * numbers["new"] for slot, mean in means.items()}
        update = gradient * inverse_root(after, axis=output_axis(path))
        update = update / jnp.maximum(jnp.sqrt(jnp.square(update).mean()) / CLIP, 1.0)
        return values - values * (self.weight_decay * rate) - rate * update, after


Optimizer = AdamW | Adafactor


def optimizer_of(spec: OptimizerSpec) -> Optimizer:
    if spec.name == "adamw":
        return AdamW(betas=spec.betas, epsilon=spec.epsilon, weight_decay=spec.weight_decay)
    if spec.name == "adafactor":
        return Adafactor(weight_decay=spec.weight_decay)
    raise UsageError(f"the flax backend has no {spec.name}.", where="train.optimizer.name", next_step="Set adamw or adafactor.")


# ---- factored moments ------------------------------------------------------------------------------------------------------


def output_axis(path: names.Path) -> int:
    """Torch's first axis in our layout: the last of linear maps and convolutions, the first of embeddings."""
    return -1 if path[-1] in names.KERNELS else 0


def factored(squares: Array, *, axis: int) -> Slots:
    others = tuple(range(squares.ndim - 1)) if axis == -1 else tuple(range(1, squares.ndim))
    return {"row": squares.mean(others), "col": squares.mean(axis)}


def inverse_root(means: Slots, *, axis: int) -> Array:
    """1 / root of the mean squares, of the parameter's own shape."""
    if "v" in means:
        return 1.0 / jnp.sqrt(means["v"])
    row, col = 1.0 / jnp.sqrt(means["row"] / means["row"].mean()), 1.0 / jnp.sqrt(means["col"])
    return col[..., None] * row if axis == -1 else row.reshape(-1, *(1 for _ in col.shape)) * col


# ---- in and out of files -----------------------------------------------------------------------------------------------------

# A kernel without its outputs: (H, W, I) <-> (I, H, W).
COL_TO_TORCH, COL_FROM_TORCH = (2, 0, 1), (1, 2, 0)


def slot_to_torch(slot: str, values: NDArray[Any], *, path: names.Path) -> NDArray[Any]:
    if slot == "row":
        return values
    if slot == "col":
        return np.ascontiguousarray(values.transpose(COL_TO_TORCH)) if values.ndim == 3 else values
    return names.to_torch(path, values)


def slot_from_torch(slot: str, values: NDArray[Any], *, path: names.Path) -> NDArray[Any]:
    if slot == "row":
        return values
    if slot == "col":
        return np.ascontiguousarray(values.transpose(COL_FROM_TORCH)) if values.ndim == 3 else values
    return names.from_torch(path, values)

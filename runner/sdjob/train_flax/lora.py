"""LoRA on the UNet's linear maps: the same targets, names and first values as the torch trainer's.

Axes: B pictures, I inputs, O outputs, H x W of a convolution's kernel, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_lora_A
from sdjob.diffusion.names import LORA_DOWN, LORA_UP, UNET
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, device_tensors, put_on_default
from sdjob.train_flax.models.layers import Adaptable, DropoutKey, LoraParam

if TYPE_CHECKING:
    from sdjob.diffusion.tensor_file import StoredTensor
    from sdjob.spec.train import LoraSpec


@dataclass(frozen=True)
class LoraShapes:
    """In torch's layout."""

    A: tuple[int, ...]
    B: tuple[int, ...]


def add_lora(unet: nnx.Module, *, spec: "LoraSpec", seed: int, put: Put = put_on_default) -> None:
    """Attaches float32 adapters, A drawn by name and B zero: the first step changes nothing.

    The adapters are `LoraParam`, all else is `nnx.Param`: who differentiates takes the former.
    """
    for name, layer in targeted(unet, spec.targets).items():
        shapes = lora_shapes(layer, rank=spec.rank)
        own_A, own_B = f"{UNET}{name}{LORA_DOWN}", f"{UNET}{name}{LORA_UP}"
        drawn_A = initial_lora_A(own_A, shape=shapes.A, seed=seed)
        layer.attach_lora(
            A=put(own_A, names.from_torch(("lora_A",), drawn_A)),
            B=put(own_B, names.from_torch(("lora_B",), np.zeros(shapes.B, np.float32))),
            scale=spec.alpha / spec.rank,
            dropout=spec.dropout,
        )


def targeted(model: nnx.Module, targets: Sequence[str]) -> dict[str, Adaptable]:
    """The linear maps whose names are a target or end in one behind a dot, as peft matches them, by name; sorted."""
    layers = {name: layer for name, layer in adaptable_layers(model).items() if _matches(name, targets)}
    if not layers:
        raise UsageError(f"the model's UNet has no layer named {' or '.join(targets)}", where="train.lora.targets")
    return layers


def adaptable_layers(model: nnx.Module) -> dict[str, Adaptable]:
    found = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, Adaptable)}
    return dict(sorted(found.items()))


def _matches(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def lora_shapes(layer: Adaptable, *, rank: int) -> LoraShapes:
    """peft's: (R, I) and (O, R); of a convolution (R, I, H, W) and (O, R, 1, 1)."""
    *size, num_inputs, num_outputs = layer.kernel.get_value().shape
    return LoraShapes(A=(rank, num_inputs, *size), B=(num_outputs, rank, *(1 for _ in size)))


def lora_tensors(unet: nnx.Module) -> "dict[str, StoredTensor]":
    """The adapters by their names in a checkpoint: `unet.`, the module, `.lora_A.weight` or `.lora_B.weight`."""
    return {f"{UNET}{name}": tensor for name, tensor in device_tensors(unet, LoraParam).items()}


def load_lora(unet: nnx.Module, tensors: dict[str, NDArray[Any]], *, put: Put = put_on_default) -> None:
    """Sets every adapter from float32 tensors under a checkpoint's names, in torch's layout."""
    own = {f"{UNET}{name}": found for name, found in names.parameters_of(unet, LoraParam).items()}
    odd = sorted(own.keys() ^ tensors.keys())
    if odd:
        raise UsageError(f"the LoRA's layers are not those of train.lora.targets: {len(odd)} differ (such as {odd[0]})")
    for name, (path, variable) in own.items():
        values = names.from_torch(path, tensors[name])
        if values.shape != variable.get_value().shape:
            raise UsageError(f"{name} has another shape than train.lora.rank asks for: {tensors[name].shape}")
        variable.set_value(put(name, values))


def set_dropout_keys(unet: nnx.Module, key: Array) -> None:
    """Turns LoRA's dropout on, each layer with a key of its own.

    For a model that was merged inside the function that uses it: with no key (validation) nothing is dropped.
    """
    for number, layer in enumerate(adaptable_layers(unet).values()):
        if layer.lora_A is not None and layer.lora_dropout:
            layer.dropout_key = DropoutKey(jnp.asarray(jax.random.fold_in(key, number)))

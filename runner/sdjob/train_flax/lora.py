"""LoRA on the UNet's linear maps: the same targets, names and first values as the torch trainer's.

Axes: B pictures, I inputs, O outputs, H x W of a convolution's kernel, R rank.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_lora_A
from sdjob.diffusion.names import LORA_DOWN, LORA_UP, UNET, kohya_module, lora_modules
from sdjob.diffusion.tensor_file import StoredTensor, read_header, read_tensors
from sdjob.spec.train import LoraSpec
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, device_tensors, from_file, put_on_default
from sdjob.train_flax.models.layers import Adaptable, DropoutKey, LoraParam


@dataclass(frozen=True)
class LoraShapes:
    """In torch's layout."""

    A: tuple[int, ...]
    B: tuple[int, ...]


def add_lora(unet: nnx.Module, *, spec: LoraSpec, seed: int, put: Put = put_on_default) -> None:
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


def lora_tensors(unet: nnx.Module) -> dict[str, StoredTensor]:
    """The adapters by their names in a checkpoint: `unet.`, the module, `.lora_A.weight` or `.lora_B.weight`."""
    return {f"{UNET}{name}": tensor for name, tensor in device_tensors(unet, LoraParam).items()}


def load_lora(unet: nnx.Module, tensors: Mapping[str, NDArray[Any]], *, put: Put = put_on_default) -> None:
    """Sets every adapter from float32 tensors under a checkpoint's names, in torch's layout."""
    own = {f"{UNET}{name}": found for name, found in names.parameters_of(unet, LoraParam).items()}
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise UsageError(
            f"the given LoRA and the job's train.lora.targets name different layers: {len(missing)} missing, {len(extra)} too "
            f"many (such as {(missing or extra)[0]})",
            where="train.init_from",
        )
    for name, (path, variable) in own.items():
        expected = names.torch_shape(path, variable.get_value().shape)
        if tensors[name].shape != expected:
            raise UsageError(
                f"{name} has shape {tensors[name].shape} in the given LoRA, but train.lora.rank asks for {expected}",
                where="train.init_from",
            )
        variable.set_value(put(name, names.from_torch(path, tensors[name])))


# ---- files of LoRA weights -------------------------------------------------------------------------------------------------

KOHYA = {LORA_DOWN: ".lora_down.weight", LORA_UP: ".lora_up.weight"}


def read_lora(path: Path, *, own: nnx.Module, spec: LoraSpec) -> dict[str, NDArray[Any]]:
    """A file of LoRA weights in diffusers' or kohya's form, under a checkpoint's names; `own` has the job's adapters.

    The same matrices under another scale would be another function than the one that was trained, so that is refused.
    """
    header, _ = read_header(path)
    stored = read_tensors(path)
    if any(name.startswith("lora_unet_") for name in stored):
        given, scales = _of_kohya(stored, own=own)
    else:
        given = {name: tensor for name, tensor in stored.items() if name.startswith(UNET)}
        scales = {_diffusers_scale(header.get("__metadata__", {}))}
    if any(not math.isclose(scale, spec.alpha / spec.rank, rel_tol=1e-6) for scale in scales):
        alphas = ", ".join(f"{scale * spec.rank:g}" for scale in sorted(scales))
        raise UsageError(
            f"{path.name} was trained with alpha {alphas} at rank {spec.rank}, and the job's train.lora.alpha is {spec.alpha:g}.",
            where="train.init_from",
            next_step="Set train.lora.alpha to the file's own." if len(scales) == 1 else None,
        )
    return {name: from_file(tensor, dtype=np.float32) for name, tensor in given.items()}


def attach_lora(unet: nnx.Module, path: Path) -> None:
    """Puts the LoRA of a file in diffusers' form on the layers that it names, to draw with."""
    header, _ = read_header(path)
    stored = read_tensors(path)
    layers, scale = adaptable_layers(unet), _diffusers_scale(header.get("__metadata__", {}))
    modules = _paired_modules(stored, where=path.name)
    strange = [module for module in modules if module not in layers]
    if strange:
        raise UsageError(f"the model's UNet has no layer {strange[0]} for the LoRA.", where=path.name)
    for module in modules:
        A, B = (from_file(stored[f"{UNET}{module}{end}"], dtype=np.float32) for end in (LORA_DOWN, LORA_UP))
        shapes = lora_shapes(layers[module], rank=len(A))
        if (A.shape, B.shape) != (shapes.A, shapes.B):
            raise UsageError(f"the LoRA of {module} has shapes {A.shape}, {B.shape}: it is another model's.", where=path.name)
        given = {"A": jnp.asarray(names.from_torch(("lora_A",), A)), "B": jnp.asarray(names.from_torch(("lora_B",), B))}
        layers[module].attach_lora(**given, scale=scale, dropout=0.0)


def _paired_modules(stored: Mapping[str, StoredTensor], *, where: str) -> list[str]:
    strange = [name for name in stored if not (name.startswith(UNET) and name.endswith((LORA_DOWN, LORA_UP)))]
    if strange:
        raise UsageError(
            f"it holds {strange[0]}; the flax backend draws with a LoRA of the UNet in diffusers' form.",
            where=where,
            next_step="Draw where torch is installed.",
        )
    return lora_modules(stored)


def _of_kohya(stored: Mapping[str, StoredTensor], *, own: nnx.Module) -> tuple[dict[str, StoredTensor], set[float]]:
    """kohya writes underscores for dots, which cannot be undone: the model's own names are spelled its way instead."""
    modules = {kohya_module(name): name for name in adaptable_layers(own)}
    given: dict[str, StoredTensor] = {}
    scales: set[float] = set()
    for name, tensor in stored.items():
        module, _, end = name.partition(".")
        if not module.startswith("lora_unet_"):
            continue  # of a text encoder
        if module not in modules:
            raise UsageError(f"the model's UNet has no layer for {name}", where="train.init_from")
        if end == "alpha":
            rank = stored[module + KOHYA[LORA_DOWN]].shape[0]
            scales.add(float(from_file(tensor, dtype=np.float32)) / rank)
        else:
            present = next((present for present, kohyas in KOHYA.items() if kohyas == f".{end}"), f".{end}")
            given[f"{UNET}{modules[module]}{present}"] = tensor
    return given, scales


def _diffusers_scale(metadata: Mapping[str, str]) -> float:
    """Of a file that says nothing diffusers makes alpha = rank."""
    adapter = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    return adapter[f"{UNET}lora_alpha"] / adapter[f"{UNET}r"] if f"{UNET}lora_alpha" in adapter else 1.0


# ---- dropout ---------------------------------------------------------------------------------------------------------------


def set_dropout_keys(unet: nnx.Module, key: Array) -> None:
    """Turns LoRA's dropout on, each layer with a key of its own.

    For a model that was merged inside the function that uses it: with no key (validation) nothing is dropped.
    """
    for number, layer in enumerate(adaptable_layers(unet).values()):
        if layer.lora_A is not None and layer.lora_dropout:
            layer.dropout_key = DropoutKey(jnp.asarray(jax.random.fold_in(key, number)))

"""LoRA on the linear maps of the UNet and of text encoders: the same targets, names and first values as the torch trainer's.

Axes: B pictures, I inputs, O outputs, H x W of a convolution's kernel, R rank.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from sdjob.diffusion.lora_scale import diffusers_scales, refuse_other_scales, scale_of
from sdjob.diffusion.names import (
    LORA_DOWN,
    LORA_UP,
    UNET,
    by_part,
    kohya_module,
    kohya_prefix,
    lora_modules,
    refuse_other_layers,
)
from sdjob.diffusion.tensor_file import StoredTensor, read_header, read_tensors
from sdjob.diffusion.text_encoders import checkpoint_name
from sdjob.spec.train import LoraSpec
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, device_tensors, from_file, put_on_default
from sdjob.train_flax.models.layers import Adaptable, DropoutKey, LoraParam


@dataclass(frozen=True)
class LoraShapes:
    """In torch's layout."""

    A: tuple[int, ...]
    B: tuple[int, ...]


def add_lora(model: nnx.Module, *, spec: LoraSpec, seed: int, put: Put = put_on_default, part: str = "unet") -> None:
    """Attaches float32 adapters, A drawn by name and B zero: the first step changes nothing.

    The adapters are `LoraParam`, all else is `nnx.Param`: who differentiates takes the former.
    """
    for name, layer in targeted(model, spec.targets).items():
        scale = scale_of(checkpoint_name(part, name), lora=spec)
        shapes = lora_shapes(layer, rank=scale.rank)
        own_A, own_B = (checkpoint_name(part, f"{name}{end}") for end in (LORA_DOWN, LORA_UP))
        drawn_A = initial_lora_A(own_A, shape=shapes.A, seed=seed)
        layer.attach_lora(
            A=put(own_A, names.from_torch(("lora_A",), drawn_A)),
            B=put(own_B, names.from_torch(("lora_B",), np.zeros(shapes.B, np.float32))),
            scale=scale.factor,
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


def load_lora(
    models: Mapping[str, nnx.Module], tensors: Mapping[str, NDArray[Any]], *, file: str, put: Put = put_on_default
) -> None:
    """Sets every adapter of the models, by their parts' names, from float32 tensors under a checkpoint's, in torch's layout."""
    own = adapters_of(models)
    refuse_other_layers(own, tensors, file=file)
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


def read_lora(path: Path, *, models: Mapping[str, nnx.Module], spec: LoraSpec) -> dict[str, NDArray[Any]]:
    """A file of LoRA weights in diffusers' or kohya's form, under a checkpoint's names; the models by their parts' names.

    The same matrices under another scale would be another function than the one that was trained, so that is refused.
    """
    header, _ = read_header(path)
    given = read_tensors(path)
    if any(name.startswith("lora_unet_") for name in given):
        given, scales = _of_kohya(given, models=models)
    else:
        by_part(given, given=path.name)
        scales = diffusers_scales(_adapter_of(header), ranks=_ranks_of(given))
    refuse_other_scales(scales, lora=spec, file=path.name)
    return {name: from_file(tensor, dtype=np.float32) for name, tensor in given.items()}


def attach_lora(models: Mapping[str, nnx.Module], path: Path) -> None:
    """Puts the LoRA of a file in diffusers' form on the layers that it names, to draw with; the models by their parts' names."""
    header, _ = read_header(path)
    stored = read_tensors(path)
    scales = diffusers_scales(_adapter_of(header), ranks=_ranks_of(stored))
    for part, own in by_part(stored).items():
        if part not in models:
            raise UsageError(f"it holds a LoRA for {part}, which the model does not have.", where=path.name)
        _attach(models[part], own, scales=scales, part=part, where=path.name)


def _attach(model: nnx.Module, stored: Mapping[str, StoredTensor], *, scales: Mapping[str, float], part: str, where: str) -> None:
    layers = {checkpoint_name(part, name).removeprefix(f"{part}."): layer for name, layer in adaptable_layers(model).items()}
    modules = _paired_modules(stored, where=where)
    strange = [module for module in modules if module not in layers]
    if strange:
        raise UsageError(f"the model's {part} has no layer {strange[0]} for the LoRA.", where=where)
    for module in modules:
        A, B = (from_file(stored[f"{module}{end}"], dtype=np.float32) for end in (LORA_DOWN, LORA_UP))
        shapes = lora_shapes(layers[module], rank=len(A))
        if (A.shape, B.shape) != (shapes.A, shapes.B):
            raise UsageError(f"the LoRA of {module} has shapes {A.shape}, {B.shape}: it is another model's.", where=where)
        given = {"A": jnp.asarray(names.from_torch(("lora_A",), A)), "B": jnp.asarray(names.from_torch(("lora_B",), B))}
        layers[module].attach_lora(**given, scale=scales[f"{part}.{module}"], dropout=0.0)


def adapters_of(models: Mapping[str, nnx.Module]) -> dict[str, tuple[names.Path, nnx.Variable[Any]]]:
    """Of the models by their parts' names: what has a LoRA, by its names in a checkpoint."""
    found = {part: names.parameters_of(model, LoraParam) for part, model in models.items()}
    return {checkpoint_name(part, name): at for part, own in found.items() for name, at in own.items()}


def _paired_modules(stored: Mapping[str, StoredTensor], *, where: str) -> list[str]:
    strange = [name for name in stored if not name.endswith((LORA_DOWN, LORA_UP))]
    if strange:
        raise UsageError(
            f"it holds {strange[0]}; the flax backend draws with a LoRA in diffusers' form.",
            where=where,
            next_step="Draw where torch is installed.",
        )
    return lora_modules(stored)


def _of_kohya(
    stored: Mapping[str, StoredTensor], *, models: Mapping[str, nnx.Module]
) -> tuple[dict[str, StoredTensor], dict[str, float]]:
    """kohya writes underscores for dots, which cannot be undone: the models' own names are spelled its way instead."""
    modules = dict(_spelled_as_kohya(models))
    given: dict[str, StoredTensor] = {}
    scales: dict[str, float] = {}
    for name, tensor in stored.items():
        module, _, end = name.partition(".")
        if module not in modules:
            raise UsageError(f"the model has no layer for {name}", where="train.init_from")
        if end == "alpha":
            rank = stored[module + KOHYA[LORA_DOWN]].shape[0]
            scales[modules[module]] = float(from_file(tensor, dtype=np.float32)) / rank
        else:
            present = next((present for present, kohyas in KOHYA.items() if kohyas == f".{end}"), f".{end}")
            given[f"{modules[module]}{present}"] = tensor
    return given, scales


def _spelled_as_kohya(models: Mapping[str, nnx.Module]) -> Iterator[tuple[str, str]]:
    """(kohya's name, a checkpoint's) of each layer that can have a LoRA."""
    for part, model in models.items():
        prefix = kohya_prefix(part, encoders=len(models) - 1)
        for layer in adaptable_layers(model):
            name = checkpoint_name(part, layer)
            yield kohya_module(name.removeprefix(f"{part}."), prefix=prefix), name


def _adapter_of(header: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(header.get("__metadata__", {}).get("lora_adapter_metadata", "{}"))


def _ranks_of(stored: Mapping[str, StoredTensor]) -> dict[str, int]:
    """By module, with its part's name before it."""
    return {name.removesuffix(LORA_DOWN): tensor.shape[0] for name, tensor in stored.items() if name.endswith(LORA_DOWN)}


# ---- dropout ---------------------------------------------------------------------------------------------------------------


def set_dropout_keys(models: Sequence[nnx.Module], key: Array) -> None:
    """Turns LoRA's dropout on, each layer with a key of its own.

    For models that were merged inside the function that uses them: with no key (validation) nothing is dropped.
    """
    for number, layer in enumerate(layer for model in models for layer in adaptable_layers(model).values()):
        if layer.lora_A is not None and layer.lora_dropout:
            layer.dropout_key = DropoutKey(jnp.asarray(jax.random.fold_in(key, number)))

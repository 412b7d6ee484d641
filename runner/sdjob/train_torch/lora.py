"""LoRA on the UNet and on text encoders through peft: adapters in, one set of names out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_lora_A
from sdjob.diffusion.names import by_part, refuse_other_layers
from sdjob.diffusion.text_encoders import checkpoint_name

if TYPE_CHECKING:
    from sdjob.spec.train import LoraSpec

ADAPTER = "default"
Adaptable = UNet2DConditionModel | CLIPTextModel | CLIPTextModelWithProjection


def add_lora(model: Adaptable, *, spec: "LoraSpec", seed: int, part: str = "unet") -> None:
    """Freezes the model and adds trainable float32 adapters, A drawn by name and B zero: the first step changes nothing."""
    model.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # pyright: ignore[reportArgumentType] (peft annotates int and divides it by the rank)
        lora_dropout=spec.dropout,
        target_modules=list(spec.targets),
        init_lora_weights=True,
    )
    try:
        model.add_adapter(config, adapter_name=ADAPTER)
    except ValueError as error:
        raise UsageError(
            f"the model's UNet has no layer named {' or '.join(spec.targets)} ({error})", where="train.lora.targets"
        ) from error
    for name, parameter in lora_parameters(model, part=part).items():
        # peft makes adapters in the base's precision: drawn into bf16 and widened after, A would depend on the precision.
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            drawn = initial_lora_A(name, shape=tuple(parameter.shape), seed=seed)
            parameter.data.copy_(torch.from_numpy(drawn))
        else:
            parameter.data.zero_()


def lora_parameters(model: Adaptable, *, part: str = "unet") -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by their names in a checkpoint: peft's own, without the adapter's name, behind the part's."""
    own = {name: parameter for name, parameter in model.named_parameters() if f".{ADAPTER}." in name}
    return {checkpoint_name(part, name.replace(f".{ADAPTER}.", ".")): parameter for name, parameter in own.items()}


@dataclass(frozen=True)
class GivenLora:
    weights: dict[str, Tensor]
    """float32, by their names in a checkpoint."""

    scales: frozenset[float]
    """alpha / rank of its layers, each value once."""


def read_lora(path: Path, *, unet_config: Any) -> GivenLora:
    """A file of LoRA weights in diffusers', peft's or kohya's form; kohya's for SDXL counts blocks in its own way."""
    loaded: Any = StableDiffusionLoraLoaderMixin.lora_state_dict(
        str(path), use_safetensors=True, return_lora_metadata=True, unet_config=unet_config
    )
    state, alphas, metadata = loaded
    parts = by_part(state, given=path.name)
    found = {part: in_pefts_names(own, part=part) for part, own in parts.items()}
    weights = {f"{part}.{name}": tensor.float() for part, own in found.items() for name, tensor in own.items()}
    scales = _kohya_scales(state, alphas) if alphas else (_diffusers_scale(metadata or {}, part=part) for part in parts)
    return GivenLora(weights, frozenset(scales))


def in_pefts_names(state: dict[str, Tensor], *, part: str) -> dict[str, Tensor]:
    if part == "unet":
        return convert_unet_state_dict_to_peft(state)
    return convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))


def _kohya_scales(state: Mapping[str, Tensor], alphas: Mapping[str, float]) -> Iterator[float]:
    """diffusers keeps an alpha under the name of the layer's A, or of the layer; A has as many rows as its rank."""
    for name, alpha in alphas.items():
        layer = name.removesuffix(".alpha")
        A = state[layer] if layer in state else state[f"{layer}.lora.down.weight"]
        yield alpha / A.shape[0]


def _diffusers_scale(metadata: Mapping[str, Any], *, part: str) -> float:
    """Of a file that says nothing diffusers makes alpha = rank."""
    return metadata[f"{part}.lora_alpha"] / metadata[f"{part}.r"] if f"{part}.lora_alpha" in metadata else 1.0


def load_lora(own: Mapping[str, torch.nn.Parameter], path: Path, *, spec: "LoraSpec", unet_config: Any) -> None:
    """Starts the adapters from given weights; every adapter of the job must be there, in the job's rank and scale."""
    start = read_lora(path, unet_config=unet_config)
    given = start.weights
    refuse_other_layers(own, given, file=path.name)
    for name, parameter in own.items():
        if parameter.shape != given[name].shape:
            raise UsageError(
                f"{name} has shape {tuple(given[name].shape)} in {path.name}, but train.lora.rank asks for "
                f"{tuple(parameter.shape)}",
                where="train.init_from",
            )
        parameter.data.copy_(given[name])
    # The same matrices under another scale would be another function than the one that was trained.
    if any(not math.isclose(scale, spec.alpha / spec.rank, rel_tol=1e-6) for scale in start.scales):
        alphas = ", ".join(f"{scale * spec.rank:g}" for scale in sorted(start.scales))
        raise UsageError(
            f"{path.name} was trained with alpha {alphas} at rank {spec.rank}, and the job's train.lora.alpha is {spec.alpha:g}.",
            where="train.init_from",
            next_step="Set train.lora.alpha to the file's own." if len(start.scales) == 1 else None,
        )

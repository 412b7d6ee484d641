"""LoRA on the UNet through peft: adapters in, one set of names out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from torch import Tensor

from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_lora_A

if TYPE_CHECKING:
    from sdjob.spec.train import LoraSpec

ADAPTER = "default"


def add_lora(unet: UNet2DConditionModel, *, spec: "LoraSpec", seed: int) -> None:
    """Freezes the UNet and adds trainable float32 adapters, A drawn by name and B zero: the first step changes nothing."""
    unet.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # pyright: ignore[reportArgumentType] (peft annotates int and divides it by the rank)
        lora_dropout=spec.dropout,
        target_modules=list(spec.targets),
        init_lora_weights=True,
    )
    try:
        unet.add_adapter(config, adapter_name=ADAPTER)
    except ValueError as error:
        raise UsageError(
            f"the model's UNet has no layer named {' or '.join(spec.targets)} ({error})", where="train.lora.targets"
        ) from error
    for name, parameter in lora_parameters(unet).items():
        # peft makes adapters in the base's precision: drawn into bf16 and widened after, A would depend on the precision.
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            drawn = initial_lora_A(name, shape=tuple(parameter.shape), seed=seed)
            parameter.data.copy_(torch.from_numpy(drawn))
        else:
            parameter.data.zero_()


def lora_parameters(unet: UNet2DConditionModel) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by their names in a checkpoint: peft's own, without the adapter's name, behind `unet.`."""
    return {
        "unet." + name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in unet.named_parameters()
        if f".{ADAPTER}." in name
    }


@dataclass(frozen=True)
class GivenLora:
    weights: dict[str, Tensor]
    """float32, by their names in a checkpoint."""

    scales: frozenset[float]
    """alpha / rank of its layers, each value once."""


def read_lora(path: Path) -> GivenLora:
    """A file of LoRA weights in diffusers', peft's or kohya's form."""
    loaded: Any = StableDiffusionLoraLoaderMixin.lora_state_dict(str(path), use_safetensors=True, return_lora_metadata=True)
    state, alphas, metadata = loaded
    unet_state = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
    peft_state: dict[str, Tensor] = convert_unet_state_dict_to_peft(unet_state)
    scales = frozenset(_kohya_scales(state, alphas)) if alphas else frozenset([_diffusers_scale(metadata or {})])
    return GivenLora({f"unet.{k}": v.float() for k, v in peft_state.items()}, scales)


def _kohya_scales(state: Mapping[str, Tensor], alphas: Mapping[str, float]) -> Iterator[float]:
    """diffusers keeps each layer's alpha under the name of its A and `.alpha`; A has as many rows as its rank."""
    for name, alpha in alphas.items():
        if name.startswith("unet."):
            yield alpha / state[name.removesuffix(".alpha")].shape[0]


def _diffusers_scale(metadata: Mapping[str, Any]) -> float:
    """Of a file that says nothing diffusers makes alpha = rank."""
    return metadata["unet.lora_alpha"] / metadata["unet.r"] if "unet.lora_alpha" in metadata else 1.0


def load_lora(unet: UNet2DConditionModel, path: Path, *, spec: "LoraSpec") -> None:
    """Starts the adapters from given weights; every adapter of the job must be there, in the job's rank and scale."""
    start, own = read_lora(path), lora_parameters(unet)
    given = start.weights
    missing = sorted(own.keys() - given.keys())
    extra = sorted(given.keys() - own.keys())
    if missing or extra:
        example = (missing or extra)[0]
        raise UsageError(
            f"{path.name} and the job's train.lora.targets name different layers: {len(missing)} missing, {len(extra)} too many "
            f"(such as {example})",
            where="train.init_from",
        )
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

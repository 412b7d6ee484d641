"""LoRA on the UNet and on text encoders through peft: adapters in, one set of names out."""

import warnings
from collections.abc import Mapping
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
from sdjob.diffusion.lora_scale import diffusers_scales, refuse_other_scales
from sdjob.diffusion.names import DORA_MAGNITUDE, LORA_DOWN, by_part, refuse_other_layers
from sdjob.diffusion.text_encoders import checkpoint_name
from sdjob.train_torch.lora_layer import fuse

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
        rank_pattern=dict(spec.rank_pattern),
        alpha_pattern=dict(spec.alpha_pattern),
        use_dora=spec.dora,
        init_lora_weights=True,
    )
    try:
        with warnings.catch_warnings():  # what peft warns of is refused in refuse_unused_patterns
            warnings.filterwarnings("ignore", "The following .* keys did not match any targeted module", RuntimeWarning)
            model.add_adapter(config, adapter_name=ADAPTER)
    except ValueError as error:
        raise UsageError(
            f"the model's UNet has no layer named {' or '.join(spec.targets)} ({error})", where="train.lora.targets"
        ) from error
    bases = magnified(model)
    for name, parameter in lora_parameters(model, part=part).items():
        # peft makes adapters in the base's precision: drawn into bf16 and widened after, A would depend on the precision.
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            drawn = initial_lora_A(name, shape=tuple(parameter.shape), seed=seed)
            parameter.data.copy_(torch.from_numpy(drawn))
        elif name.endswith(DORA_MAGNITUDE):
            parameter.data.copy_(magnitudes(bases[id(parameter)]).view_as(parameter))
        else:
            parameter.data.zero_()
    fuse(model)


def lora_parameters(model: Adaptable, *, part: str = "unet") -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by their names in a checkpoint: as peft saves them, without the adapter's name, behind the part's."""
    own = {name: parameter for name, parameter in model.named_parameters() if f".{ADAPTER}." in name}
    return {checkpoint_name(part, saved_name(name)): parameter for name, parameter in own.items()}


def saved_name(name: str) -> str:
    return name.replace(f"{DORA_MAGNITUDE}.{ADAPTER}.weight", DORA_MAGNITUDE).replace(f".{ADAPTER}.", ".")


def magnified(model: Adaptable) -> dict[int, Tensor]:
    """The weights that DoRA's magnitudes are of, by the magnitudes' identity."""
    layers: Any = [module for module in model.modules() if ADAPTER in getattr(module, "lora_magnitude_vector", ())]
    return {id(layer.lora_magnitude_vector[ADAPTER].weight): layer.get_base_layer().weight for layer in layers}


def magnitudes(weight: Tensor) -> Tensor:
    """DoRA's first values, in float32: the norm of each output's weights (arXiv 2402.09353, section 4)."""
    return weight.detach().float().flatten(1).norm(dim=1)


@dataclass(frozen=True)
class GivenLora:
    weights: dict[str, Tensor]
    """float32, by their names in a checkpoint."""

    scales: dict[str, float]
    """alpha / rank by module."""


def read_lora(path: Path, *, unet_config: Any) -> GivenLora:
    """A file of LoRA weights in diffusers', peft's or kohya's form; kohya's for SDXL counts blocks in its own way."""
    loaded: Any = StableDiffusionLoraLoaderMixin.lora_state_dict(
        str(path), use_safetensors=True, return_lora_metadata=True, unet_config=unet_config
    )
    state, alphas, metadata = loaded
    parts = by_part(state, given=path.name)
    converted = {part: in_pefts_names(own, part=part) for part, own in parts.items()}
    found = {f"{part}.{name}": tensor for part, own in converted.items() for name, tensor in own.items()}
    ranks = {name.removesuffix(LORA_DOWN): tensor.shape[0] for name, tensor in found.items() if name.endswith(LORA_DOWN)}
    names = {id(tensor): name for name, tensor in found.items()}
    scales = _kohya_scales(state, alphas, names=names) if alphas else diffusers_scales(metadata or {}, ranks=ranks)
    return GivenLora({name: tensor.float() for name, tensor in found.items()}, scales)


def in_pefts_names(state: dict[str, Tensor], *, part: str) -> dict[str, Tensor]:
    if part == "unet":
        return convert_unet_state_dict_to_peft(state)
    return convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))


def _kohya_scales(state: Mapping[str, Tensor], alphas: Mapping[str, float], *, names: Mapping[int, str]) -> dict[str, float]:
    """diffusers keeps an alpha under the name of the layer's A, or of the layer; A has as many rows as its rank.

    `names`: what the tensors of the state, by their ids, are called in a checkpoint.
    """
    scales: dict[str, float] = {}
    for name, alpha in alphas.items():
        layer = name.removesuffix(".alpha")
        A = state[layer] if layer in state else state[f"{layer}.lora.down.weight"]
        scales[names[id(A)].removesuffix(LORA_DOWN)] = alpha / A.shape[0]
    return scales


def load_lora(own: Mapping[str, torch.nn.Parameter], path: Path, *, spec: "LoraSpec", unet_config: Any) -> None:
    """Starts the adapters from given weights; every adapter of the job must be there, in the job's rank and scale."""
    start = read_lora(path, unet_config=unet_config)
    given = start.weights
    refuse_other_kind(own, given, file=path.name)
    refuse_other_layers(own, given, file=path.name)
    for name, parameter in own.items():
        if parameter.shape != given[name].shape:
            raise UsageError(
                f"{name} has shape {tuple(given[name].shape)} in {path.name}, but train.lora.rank asks for "
                f"{tuple(parameter.shape)}",
                where="train.init_from",
            )
        parameter.data.copy_(given[name])
    refuse_other_scales(start.scales, lora=spec, file=path.name)


def refuse_other_kind(own: Mapping[str, object], given: Mapping[str, object], *, file: str) -> None:
    asked, found = (any(name.endswith(DORA_MAGNITUDE) for name in names) for names in (own, given))
    if asked != found:
        raise UsageError(
            f"{file} is {'a' if found else 'no'} DoRA, and train.lora.dora is {str(asked).lower()}.",
            where="train.init_from",
            next_step=f"Set train.lora.dora: {str(found).lower()}.",
        )

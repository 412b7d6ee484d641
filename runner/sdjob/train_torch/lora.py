"""LoRA on the UNet through peft: adapters in, one set of names out."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
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
        lora_alpha=spec.alpha,
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


def read_lora(path: Path) -> dict[str, Tensor]:
    """LoRA weights in diffusers', peft's or kohya's form by their names in a checkpoint."""
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(path), use_safetensors=True)
    if alphas:
        raise_for_foreign_alphas(state, alphas, path=path)
    unet_state = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
    return {f"unet.{k}": v.float() for k, v in convert_unet_state_dict_to_peft(unet_state).items()}


def raise_for_foreign_alphas(state: dict[str, Tensor], alphas: dict[str, float], *, path: Path) -> None:
    """A start from alpha != rank would silently be scaled: fold it in yourself, or train with that alpha."""
    ranks = {v.shape[0] for k, v in state.items() if k.endswith((".lora_A.weight", ".lora.down.weight"))}
    if any(alpha not in ranks for alpha in alphas.values()):
        raise UsageError(
            f"{path.name} was trained with alpha {sorted(set(alphas.values()))} at rank {sorted(ranks)}; only alpha = rank "
            "can be taken as a start",
            where="train.init_from",
        )


def load_lora(unet: UNet2DConditionModel, path: Path) -> None:
    """Starts the adapters from given weights; every adapter of the job must be there, in the job's rank."""
    given, own = read_lora(path), lora_parameters(unet)
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

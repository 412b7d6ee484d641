"""The two forms in which a LoRA is published: diffusers' own file and kohya's, from the names of a checkpoint.

No time, host or path stands in their metadata, so that equal weights are equal files.
"""

import json
from collections.abc import Mapping
from typing import Any

from sdjob.diffusion.family import BaseModel, Family
from sdjob.diffusion.lora_scale import as_number, scale_of
from sdjob.diffusion.names import LORA_DOWN, LORA_UP, by_part, kohya_module, kohya_prefix, lora_modules
from sdjob.diffusion.tensor_file import StoredTensor, scalar
from sdjob.diffusion.text_encoders import TEXT_MODEL
from sdjob.spec.train import LoraSpec

# https://github.com/Stability-AI/ModelSpec and sd-scripts' library/sai_model_spec.py
ARCHITECTURES: dict[tuple[Family, bool], str] = {
    ("sd1", False): "stable-diffusion-v1",
    ("sd1", True): "stable-diffusion-v1",
    ("sd2", False): "stable-diffusion-v2-512",
    ("sd2", True): "stable-diffusion-v2-768-v",
    ("sdxl", False): "stable-diffusion-xl-v1-base",
    ("sdxl", True): "stable-diffusion-xl-v1-base",
}
# What sd-scripts calls them; A1111 sorts a LoRA by "sdxl_..." here and by ss_v2.
KOHYA_VERSIONS: dict[Family, str] = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


def diffusers_metadata(tensors: Mapping[str, StoredTensor], *, lora: LoraSpec) -> dict[str, str]:
    """diffusers makes a peft LoraConfig of `lora_adapter_metadata` (loaders/lora_base.py); without it alpha would be rank.

    Only what it takes to load: peft refuses keys that its version does not know.
    """
    prefixed = {
        f"{part}.{key}": value
        for part, of_part in by_part(tensors).items()
        for key, value in adapter_configuration(lora_modules(of_part), lora=lora).items()
    }
    return {"format": "pt", "lora_adapter_metadata": json.dumps(prefixed, indent=2, sort_keys=True)}


def adapter_configuration(modules: list[str], *, lora: LoraSpec) -> dict[str, Any]:
    """peft finds a module by the end of its name: without `text_model.` it does in transformers 4 and 5."""
    own = {module.removeprefix(TEXT_MODEL): scale_of(module, lora=lora) for module in modules}
    adapter: dict[str, Any] = {"r": lora.rank, "lora_alpha": as_number(lora.alpha), "target_modules": list(own)}
    if lora.dora:
        adapter["use_dora"] = True
    # By whole names: of patterns the first that matches counts, and sorted they would stand in another order.
    if ranks := {module: scale.rank for module, scale in own.items() if scale.rank != lora.rank}:
        adapter["rank_pattern"] = ranks
    if alphas := {module: as_number(scale.alpha) for module, scale in own.items() if scale.alpha != lora.alpha}:
        adapter["alpha_pattern"] = alphas
    return adapter


def kohya_tensors(tensors: Mapping[str, StoredTensor], *, lora: LoraSpec) -> dict[str, StoredTensor]:
    parts = by_part(tensors)
    encoders = 2 if "text_encoder_2" in parts else 1
    renamed: dict[str, StoredTensor] = {}
    for part, of_part in parts.items():
        prefix = kohya_prefix(part, encoders=encoders)
        for module in lora_modules(of_part):
            name = kohya_module(module, prefix=prefix)
            renamed[f"{name}.alpha"] = scalar(scale_of(module, lora=lora).alpha)
            renamed[f"{name}.lora_down.weight"] = of_part[f"{module}{LORA_DOWN}"]
            renamed[f"{name}.lora_up.weight"] = of_part[f"{module}{LORA_UP}"]
    return renamed


def kohya_metadata(
    tensors: Mapping[str, StoredTensor], *, lora: LoraSpec, base: BaseModel | None, resolution: tuple[int, int]
) -> dict[str, str]:
    """`resolution` is (width, height) in pixels; an unknown base model is left unnamed, never guessed."""
    alpha = str(as_number(lora.alpha))
    # kohya's LoRA has a rank of its own for convolutions larger than 1 x 1; its readers look for it in the arguments.
    has_conv = any(name.endswith(LORA_DOWN) and tensor.shape[2:] not in ((), (1, 1)) for name, tensor in tensors.items())
    arguments = {"conv_alpha": alpha, "conv_dim": str(lora.rank)} if has_conv else {}
    return {
        "format": "pt",
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(arguments, sort_keys=True),
        "ss_network_dim": str(lora.rank),
        "ss_network_module": "networks.lora",
        **(base_metadata(base, resolution=resolution) if base else {}),
    }


def base_metadata(base: BaseModel, *, resolution: tuple[int, int]) -> dict[str, str]:
    architecture = ARCHITECTURES[base.family, base.v_prediction]
    return {
        "ss_base_model_version": KOHYA_VERSIONS[base.family] + ("_v" if base.v_prediction and base.family == "sd2" else ""),
        "ss_v2": str(base.family == "sd2"),
        "ss_zero_terminal_snr": str(base.zero_terminal_snr),
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": "v" if base.v_prediction else "epsilon",
        "modelspec.resolution": "{}x{}".format(*resolution),
        "modelspec.sai_model_spec": "1.0.0",
        # The standard asks for a title; the job's name here would make unequal files of equal weights.
        "modelspec.title": f"{architecture} LoRA",
    }

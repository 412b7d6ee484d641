"""A model in one file, as Stability's own code and ComfyUI keep it, taken apart into the weights of a diffusers folder.

Nothing is computed, so that a file of any precision comes out as it is: names change, rows that stand together in OpenCLIP's
attention are told apart, one matrix is transposed. The names are those of https://github.com/Stability-AI/generative-models
(ldm's openaimodel.py and autoencoder model.py, open_clip's transformer.py) against diffusers' own.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdjob.core.errors import DataError
from sdjob.diffusion.family import Family
from sdjob.diffusion.tensor_file import StoredTensor

Stored = Mapping[str, StoredTensor]
Named = Iterator[tuple[str, StoredTensor]]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Of the text encoders: (the part of a diffusers folder, where its weights stand in the file).
CLIP = (("text_encoder", "cond_stage_model.transformer."), ("text_encoder", "conditioner.embedders.0.transformer."))
OPEN_CLIP = (("text_encoder", "cond_stage_model.model."), ("text_encoder_2", "conditioner.embedders.1.model."))


@dataclass(frozen=True)
class Sizes:
    """What of a model's configurations decides the names."""

    unet_levels: int
    unet_layers: int
    vae_levels: int
    text_layers: dict[str, int]
    """By the text encoder's folder."""

    @classmethod
    def of(cls, configs: Mapping[str, dict[str, Any]]) -> "Sizes":
        """Of the parts' config.json, by the parts' folders."""
        return cls(
            unet_levels=len(configs["unet"]["block_out_channels"]),
            unet_layers=configs["unet"]["layers_per_block"],
            vae_levels=len(configs["vae"]["block_out_channels"]),
            text_layers={p: c["num_hidden_layers"] for p, c in configs.items() if p.startswith("text_encoder")},
        )


def family_of_file(stored: Stored, *, where: str) -> Family:
    """By the text encoder: CLIP of SD 1.x, OpenCLIP of 2.x, both of SDXL. DataError (65) where it holds no whole model."""
    kinds = {"conditioner.": "sdxl", OPEN_CLIP[0][1]: "sd2", CLIP[0][1]: "sd1"}
    found = next((kind for start, kind in kinds.items() if any(name.startswith(start) for name in stored)), None)
    if found is None or not all(any(name.startswith(part) for name in stored) for part in (UNET, VAE)):
        lacks = [part for part in (UNET, VAE) if not any(name.startswith(part) for name in stored)] or ["a text encoder"]
        raise DataError(
            f"holds no whole Stable Diffusion: nothing in it is called {lacks[0]}...",
            where=where,
            next_step="Name a checkpoint with UNet, VAE and text encoder in one file, or a folder in diffusers' layout.",
        )
    return found  # pyright: ignore[reportReturnType]


def parts_of(stored: Stored, *, sizes: Sizes, where: str) -> dict[str, dict[str, StoredTensor]]:
    """The weights of unet, vae and the text encoders under diffusers' names; what else the file holds is left out.

    DataError (65) where file and configuration are not of one model.
    """
    parts = {
        "unet": dict(_unet(_below(stored, UNET), sizes=sizes)),
        "vae": dict(_vae(_below(stored, VAE), levels=sizes.vae_levels)),
    }
    for part, prefix in CLIP:
        if below := _below(stored, prefix):
            parts[part] = dict(_clip(below))
    for part, prefix in OPEN_CLIP:
        if below := _below(stored, prefix):
            parts[part] = dict(_open_clip(below, layers=sizes.text_layers.get(part, 0), projects=part != "text_encoder"))
    _refuse_another_model(parts, sizes=sizes, where=where)
    return parts


def _below(stored: Stored, prefix: str) -> dict[str, StoredTensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}


def _refuse_another_model(parts: Mapping[str, Stored], *, sizes: Sizes, where: str) -> None:
    """By the blocks that should be there; of other widths the trainers' libraries tell."""
    needed = {part: f"text_model.encoder.layers.{layers - 1}.mlp.fc1.weight" for part, layers in sizes.text_layers.items()}
    levels, layers = sizes.unet_levels, sizes.unet_layers
    resnets = {f"unet/down_blocks.{level}.resnets.{layer}" for level in range(levels) for layer in range(layers)}
    resnets |= {f"unet/up_blocks.{level}.resnets.{layer}" for level in range(levels) for layer in range(layers + 1)}
    there = {f"unet/{match[0]}" for name in parts["unet"] if (match := re.match(r"(down|up)_blocks\.\d+\.resnets\.\d+", name))}
    odd = sorted(resnets ^ there) + sorted(f"{part}/{name}" for part, name in needed.items() if name not in parts.get(part, {}))
    if odd:
        raise DataError(
            f"the file and the configuration are not of one model: they do not both have {odd[0]}.",
            where=where,
            next_step="Set model.config to a folder in diffusers' layout of the model that the file was made from.",
        )


# ---- UNet ------------------------------------------------------------------------------------------------------------------

RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


def unet_modules(*, levels: int, layers: int) -> dict[str, str]:
    """The file's module -> diffusers': every level's layers one after the other, then what changes the resolution."""
    found = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    for level in range(levels):
        first = level * (layers + 1)
        for layer in range(layers):
            found[f"input_blocks.{first + layer + 1}.0"] = f"down_blocks.{level}.resnets.{layer}"
            found[f"input_blocks.{first + layer + 1}.1"] = f"down_blocks.{level}.attentions.{layer}"
        found[f"input_blocks.{first + layers + 1}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        for layer in range(layers + 1):
            found[f"output_blocks.{first + layer}.0"] = f"up_blocks.{level}.resnets.{layer}"
            found[f"output_blocks.{first + layer}.1"] = f"up_blocks.{level}.attentions.{layer}"
        for behind in (1, 2):  # without an attention and with one
            found[f"output_blocks.{first + layers}.{behind}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return found


def _unet(below: Stored, *, sizes: Sizes) -> Named:
    modules = unet_modules(levels=sizes.unet_levels, layers=sizes.unet_layers)
    longest_first = sorted(modules, key=len, reverse=True)
    for name, tensor in below.items():
        module = next((module for module in longest_first if name.startswith(f"{module}.")), None)
        new = f"{modules[module]}.{name[len(module) + 1 :]}" if module else name
        if ".resnets." in new:
            new = _replaced(new, RESNET)
        yield new, tensor


def _replaced(name: str, words: Mapping[str, str]) -> str:
    for theirs, ours in words.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


# ---- VAE -------------------------------------------------------------------------------------------------------------------

VAE_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _vae(below: Stored, *, levels: int) -> Named:
    for name, tensor in below.items():
        new = name
        for theirs, ours in VAE_WORDS:
            new = re.sub(theirs, ours, new)
        # The file counts the decoder's levels from the picture inwards, diffusers from the latents outwards.
        new = re.sub(r"^decoder\.up_blocks\.(\d+)", lambda match: f"decoder.up_blocks.{levels - 1 - int(match[1])}", new)
        if ".attentions." in new:
            # Linear maps stand in the file as convolutions of 1 x 1.
            yield _replaced(new, VAE_ATTENTION), replace(tensor, shape=tensor.shape[:2])
        else:
            yield new, tensor


# ---- text encoders ---------------------------------------------------------------------------------------------------------

OPEN_CLIP_WHOLE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _clip(below: Stored) -> Named:
    for name, tensor in below.items():
        if not name.endswith(".position_ids"):  # a buffer of older versions, the same in every model
            yield name if name.startswith("text_model.") else f"text_model.{name}", tensor


def _open_clip(below: Stored, *, layers: int, projects: bool) -> Named:
    """`layers`: diffusers' SD 2.x leaves out the last one, whose output the model does not use."""
    for name, tensor in below.items():
        if name in OPEN_CLIP_WHOLE:
            yield OPEN_CLIP_WHOLE[name], tensor
        elif name == "text_projection" and projects:
            yield "text_projection.weight", transposed(tensor)
        elif (match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)) and int(match[1]) < layers:
            yield from _open_clip_layer(f"text_model.encoder.layers.{match[1]}", match[2], tensor)


def _open_clip_layer(layer: str, name: str, tensor: StoredTensor) -> Named:
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        for number, projection in enumerate(("q_proj", "k_proj", "v_proj")):
            yield f"{layer}.self_attn.{projection}.{name.rpartition('_')[2]}", third(tensor, number)
    else:
        yield _replaced(f"{layer}.{name}", OPEN_CLIP_LAYER), tensor


def third(tensor: StoredTensor, number: int) -> StoredTensor:
    """The first, second or third part of the rows."""
    rows = tensor.shape[0] // 3
    return tensor.rows(number * rows, (number + 1) * rows)


def transposed(tensor: StoredTensor) -> StoredTensor:
    """A matrix of any type: its elements are moved and not read."""
    element = np.dtype(f"V{tensor.size_bytes // math.prod(tensor.shape)}")
    values = np.frombuffer(b"".join(tensor.pieces()), dtype=element).reshape(tensor.shape)
    return StoredTensor(tensor.dtype, tensor.shape[::-1], tensor.size_bytes, np.ascontiguousarray(values.T).tobytes())

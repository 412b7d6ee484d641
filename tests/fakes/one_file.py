"""A diffusers folder as the one file that Stability's own code would have saved of the same model."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdjob.diffusion.family import Family
from sdjob.diffusion.single_file import RESNET, VAE_ATTENTION, unet_modules

Tensors = dict[str, Tensor]
LEVELS, LAYERS = 2, 1  # of the tiny models' UNets
VAE_LEVELS = 4


def write_one_file(model: Path, file: Path, *, family: Family, dtype: torch.dtype = torch.float32) -> Path:
    """That diffusers reads the same weights out of it is what the names here are tested by."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in unet(weights(model, "unet")).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in vae(weights(model, "vae")).items()}
    text = weights(model, "text_encoder")
    if family == "sd2":
        tensors |= {f"cond_stage_model.model.{name}": tensor for name, tensor in open_clip(text).items()}
    else:
        prefix = "conditioner.embedders.0.transformer." if family == "sdxl" else "cond_stage_model.transformer."
        tensors |= {f"{prefix}{name}": tensor for name, tensor in below_text_model(text).items()}
    if family == "sdxl":
        second = open_clip(weights(model, "text_encoder_2"))
        tensors |= {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in second.items()}
    # What else such files hold, and no folder does.
    tensors |= {"model_ema.decay": torch.tensor(0.9999), "alphas_cumprod": torch.linspace(1, 0, 1000)}
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, file)
    return file


def weights(model: Path, part: str) -> Tensors:
    (file,) = (model / part).glob("*.safetensors")
    return load_file(file)


def unet(tensors: Tensors) -> Tensors:
    modules = {ours: theirs for theirs, ours in unet_modules(levels=LEVELS, layers=LAYERS).items()}
    attentive = {name.partition(".attentions.")[0] for name in tensors if ".attentions." in name}
    for level in range(LEVELS):
        # Behind an attention the upsampler is the third of its block, without one the second.
        behind = 2 if f"up_blocks.{level}" in attentive else 1
        modules[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{level * (LAYERS + 1) + LAYERS}.{behind}.conv"
    inner = {ours: theirs for theirs, ours in RESNET.items()}
    found: Tensors = {}
    for name, tensor in tensors.items():
        module = max((m for m in modules if name.startswith(f"{m}.")), key=len)
        rest = replaced(name[len(module) :], inner) if ".resnets." in name else name[len(module) :]
        found[modules[module] + rest] = tensor
    return found


def vae(tensors: Tensors) -> Tensors:
    words = {
        ".mid_block.resnets.0.": ".mid.block_1.", ".mid_block.resnets.1.": ".mid.block_2.",
        ".mid_block.attentions.0.": ".mid.attn_1.",
        ".conv_shortcut.": ".nin_shortcut.", ".conv_norm_out.": ".norm_out.", "encoder.down_blocks.": "encoder.down.",
        ".resnets.": ".block.", ".downsamplers.0.": ".downsample.", ".upsamplers.0.": ".upsample.",
    }  # fmt: skip
    words |= {f"decoder.up_blocks.{VAE_LEVELS - 1 - level}.": f"decoder.up.{level}." for level in range(VAE_LEVELS)}
    inner = {ours: theirs for theirs, ours in VAE_ATTENTION.items()}
    found: Tensors = {}
    for name, tensor in tensors.items():
        new = replaced(name, inner) if ".attentions." in name else name
        for ours, theirs in words.items():
            new = new.replace(ours, theirs)
        found[new] = tensor[:, :, None, None] if ".attentions." in name and tensor.ndim == 2 else tensor
    return found


def open_clip(tensors: Tensors) -> Tensors:
    """With a last layer more than diffusers keeps of SD 2.x, and its projection."""
    plain = below_text_model(tensors)
    found: Tensors = {
        "token_embedding.weight": plain["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": plain["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": plain["text_model.final_layer_norm.weight"],
        "ln_final.bias": plain["text_model.final_layer_norm.bias"],
    }
    width = found["ln_final.weight"].shape[0]
    projection = plain.get("text_projection.weight", torch.zeros(width, width))
    found["text_projection"] = projection.T
    layers = {name.split(".")[3] for name in plain if ".layers." in name}
    for layer in layers:
        own = {name.split(".", 4)[4]: tensor for name, tensor in plain.items() if f".layers.{layer}." in name}
        found |= dict(resblock(own, layer=int(layer)))
    return found


def resblock(own: Tensors, *, layer: int) -> Iterator[tuple[str, Tensor]]:
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for end in ("weight", "bias"):
        for ours, theirs in names.items():
            yield f"transformer.resblocks.{layer}.{theirs}.{end}", own[f"{ours}.{end}"]
        rows = [own[f"self_attn.{letter}_proj.{end}"] for letter in "qkv"]
        yield f"transformer.resblocks.{layer}.attn.in_proj_{end}", torch.cat(rows)


def below_text_model(tensors: Tensors) -> Tensors:
    """transformers 5 saves the names without it."""
    return {name if name.startswith("text_") else f"text_model.{name}": tensor for name, tensor in tensors.items()}


def replaced(name: str, words: dict[str, str]) -> str:
    for ours, theirs in words.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name

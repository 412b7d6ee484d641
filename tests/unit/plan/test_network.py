"""Counted from the configuration, and by torch on the model itself, full size, on its meta device: the same numbers."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdjob.core.errors import UsageError
from sdjob.plan import families
from sdjob.plan.families import SD1, SD2, SDXL, ModelShape
from sdjob.plan.network import Grid, Layer, text_encoder, unet, vae_encoder

SHAPES = {"sd1": (SD1, 512), "sd2": (SD2, 768), "sdxl": (SDXL, 1024)}
# TFLOP a forward pass, and parameters, as published: https://arxiv.org/abs/2307.01952 (table 1, without the last conv's rounding)
PARAMS = {"sd1": 859_520_964, "sd2": 865_910_724, "sdxl": 2_567_463_684}


def flops_of(layers: list[Layer]) -> int:
    return sum(layer.flops for layer in layers)


def params_of(layers: list[Layer]) -> dict[str, int]:
    return {layer.name: layer.params for layer in layers if layer.params}


def true_params(module: torch.nn.Module) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        layer = name.rpartition(".")[0]
        found[layer] = found.get(layer, 0) + parameter.numel()
    return found


def counted(module: torch.nn.Module, *inputs: Any, **named: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs, **named)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", SHAPES)
def test_unet(name):
    shape, px = SHAPES[name]
    layers = list(unet(shape.unet, latents=Grid(px // 8, px // 8)))
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(shape.unet | {"attention_head_dim": 64})
        latents, text = torch.empty(1, 4, px // 8, px // 8), torch.empty(1, 77, shape.unet["cross_attention_dim"])
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        assert params_of(layers) == true_params(model)
        assert sum(params_of(layers).values()) == PARAMS[name]
        assert flops_of(layers) == counted(model, latents, torch.tensor(1), text, added_cond_kwargs=added)


@pytest.mark.parametrize("px", [512, 1024])
def test_vae_encoder(px):
    layers = list(vae_encoder(families.VAE, picture=Grid(px, px)))
    with torch.device("meta"):
        model = AutoencoderKL.from_config(families.VAE | {"up_block_types": ["UpDecoderBlock2D"] * 4})
        parts = {name: n for name, n in true_params(model).items() if name.startswith(("encoder", "quant"))}
        assert params_of(layers) == parts
        assert flops_of(layers) == counted(Encoding(model), torch.empty(1, 3, px, px))


class Encoding(torch.nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels).latent_dist.mean


@pytest.mark.parametrize("config", [families.CLIP_L, families.CLIP_H, families.CLIP_G], ids=["L", "H", "G"])
def test_text_encoder(config):
    layers = list(text_encoder(config))
    with_projection = "WithProjection" in config["architectures"][0]
    with torch.device("meta"):
        model = (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(CLIPTextConfig(**config))
        assert sum(params_of(layers).values()) == sum(true_params(model).values())
        assert flops_of(layers) == counted(model, torch.zeros(1, 77, dtype=torch.long))


def test_pictures_that_are_not_square_and_odd_maps():
    """3 levels down from 36 x 20: 18 x 10, 9 x 5, 5 x 3."""
    layers = list(unet(families.UNET_SD1, latents=Grid(36, 20)))
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(families.UNET_SD1 | {"attention_head_dim": 8})
        flops = counted(model, torch.empty(1, 4, 36, 20), torch.tensor(1), torch.empty(1, 77, 768))
    assert flops_of(layers) == flops


@pytest.mark.parametrize(("part", "layers"), [("unet", unet), ("vae", vae_encoder)])
def test_blocks_of_another_kind_of_model(part, layers):
    config = getattr(SD1, part) | {"down_block_types": ["AttnDownBlock2D"] * 4}
    grid = {"latents" if part == "unet" else "picture": Grid(64, 64)}
    with pytest.raises(UsageError, match="AttnDownBlock2D"):
        list(layers(config, **grid))


def test_what_is_published_of_the_work():
    """GFLOP a picture at 512 px: SD 1.5's VAE 1117, text 13, UNet 803."""
    shape: ModelShape = SD1
    assert flops_of(list(vae_encoder(shape.vae, picture=Grid(512, 512)))) / 1e9 == pytest.approx(1117, abs=1)
    assert flops_of(list(text_encoder(shape.text_encoders[0]))) / 1e9 == pytest.approx(13, abs=0.5)
    assert flops_of(list(unet(shape.unet, latents=Grid(64, 64)))) / 1e9 == pytest.approx(803, abs=1)

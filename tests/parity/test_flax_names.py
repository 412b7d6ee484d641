"""Every parameter of the full-size models has torch's own name and shape in flax, and nothing is named twice; shapes alone."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from sdjob.train_flax.models import clip_text, names, unet, vae
from sdjob.train_flax.models.config import TextConfig, UNetConfig, VaeConfig
from sdjob.train_flax.models.layers import Compute

# The options in which the families' published config.json differ from diffusers' defaults.
UNETS = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "without middle": {"mid_block_type": None, "layers_per_block": [1, 2, 1, 1], "cross_attention_dim": 768},
}  # fmt: skip
VAE = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2,
}  # fmt: skip
TEXTS = {
    "ViT-L": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    "ViT-H": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23, "hidden_act": "gelu",
    },
    "ViT-bigG": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "hidden_act": "gelu",
        "projection_dim": 1280,
    },
}  # fmt: skip


def our_shapes(kind, config):
    model = kind(config, compute=Compute(), rngs=None)
    own = names.parameters_of(model)
    return {name: names.torch_shape(path, variable.get_value().shape) for name, (path, variable) in own.items()}


def their_shapes(make):
    with torch.device("meta"):
        return {name: tuple(parameter.shape) for name, parameter in make().named_parameters()}


def written(folder, options):
    (folder / "config.json").write_text(json.dumps(options))
    return folder / "config.json"


@pytest.mark.parametrize("family", UNETS)
def test_unet(tmp_path, family):
    config = UNetConfig.read(written(tmp_path, UNETS[family]))
    expected = their_shapes(lambda: UNet2DConditionModel(**UNETS[family]))
    assert our_shapes(unet.UNet2DConditionModel, config) == expected


def test_unet_without_options_is_diffusers_own(tmp_path):
    config = UNetConfig.read(written(tmp_path, {}))
    assert our_shapes(unet.UNet2DConditionModel, config) == their_shapes(UNet2DConditionModel)


def test_vae(tmp_path):
    config = VaeConfig.read(written(tmp_path, VAE))
    assert our_shapes(vae.AutoencoderKL, config) == their_shapes(lambda: AutoencoderKL(**VAE))


@pytest.mark.parametrize("model", TEXTS)
def test_text_encoder(tmp_path, model):
    config = TextConfig.read(written(tmp_path, TEXTS[model]))
    theirs = CLIPTextConfig(**TEXTS[model])
    assert our_shapes(clip_text.CLIPTextModel, config) == their_shapes(lambda: CLIPTextModel(theirs))
    expected = their_shapes(lambda: CLIPTextModelWithProjection(theirs))
    assert our_shapes(clip_text.CLIPTextModelWithProjection, config) == expected


@pytest.mark.parametrize(
    ("leaf", "shape", "torchs"),
    [
        ("kernel", (2, 3), (3, 2)),
        ("kernel", (5, 7, 2, 3), (3, 2, 5, 7)),
        ("lora_A", (5, 7, 2, 4), (4, 2, 5, 7)),
        ("lora_B", (4, 3), (3, 4)),
        ("embedding", (2, 3), (2, 3)),
        ("scale", (3,), (3,)),
    ],
)
def test_layouts_there_and_back(leaf, shape, torchs):
    ours = np.arange(np.prod(shape)).reshape(shape)
    theirs = names.to_torch((leaf,), ours)
    assert theirs.shape == torchs == names.torch_shape((leaf,), shape)
    assert np.array_equal(names.from_torch((leaf,), theirs), ours)

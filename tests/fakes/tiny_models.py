"""Stable Diffusion pipelines of about a hundred thousand random parameters: every kind of layer, nothing of the size."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train_base import make_tokenizer

Family = Literal["sd1", "sd2"]
Prediction = Literal["epsilon", "v_prediction"]

STATE_WIDTH = 32
SIZE_PX = 64


def write_tiny_model(folder: Path, *, family: Family = "sd1", seed: int = 0, prediction: Prediction | None = None) -> None:
    """Writes a pipeline in diffusers' format (safetensors, float32); the same seed gives the same bytes.

    The default prediction is its family's: epsilon for sd1, v_prediction for sd2.
    """
    tokenizer = make_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=make_vae(), text_encoder=make_text_encoder(tokenizer, family=family), tokenizer=tokenizer,
            unet=make_unet(family=family), scheduler=make_scheduler(prediction or default_prediction(family)),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipeline.save_pretrained(folder)


def default_prediction(family: Family) -> Prediction:
    return "epsilon" if family == "sd1" else "v_prediction"


def make_unet(*, family: Family) -> UNet2DConditionModel:
    # sd1 gives the number of heads under the name attention_head_dim (a misnomer that diffusers keeps); sd2 gives a list.
    heads = {"attention_head_dim": 2} if family == "sd1" else {"attention_head_dim": [2, 4], "use_linear_projection": True}
    return UNet2DConditionModel(
        sample_size=SIZE_PX // 8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=STATE_WIDTH, norm_num_groups=8, **heads,
    )  # fmt: skip


def make_vae() -> AutoencoderKL:
    """Four blocks halve the picture three times: 8 x 8 pixels to one latent, as in the real models."""
    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=SIZE_PX,
    )  # fmt: skip


def make_text_encoder(tokenizer: CLIPTokenizer, *, family: Family) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=STATE_WIDTH, intermediate_size=2 * STATE_WIDTH, num_attention_heads=2,
        # sd2's checkpoints were cut before OpenCLIP's last layer: one layer fewer, another activation.
        num_hidden_layers=2 if family == "sd1" else 1, hidden_act="quick_gelu" if family == "sd1" else "gelu",
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def make_scheduler(prediction: Prediction) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip

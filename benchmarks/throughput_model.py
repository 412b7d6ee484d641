"""What throughput.py trains on: Stable Diffusion 1.5 with 0.3 of its widths (or all of them), random weights, and pictures.

The narrow one has 77 million parameters in its UNet, and each part has about the share of the work that it has in the real one.
Random weights take as long as trained ones.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENIZER = Path(__file__).resolve().parents[1] / "jobspecs" / "quickstart" / "base" / "tokenizer"
TOKENS = 77
CAPTION = "a red circle on a blue background"


@dataclass(frozen=True)
class Widths:
    unet: tuple[int, int, int, int]
    vae: tuple[int, int, int, int]
    vae_groups: int
    text: int
    text_heads: int


# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/tree/main has the configurations of the real one.
WIDTHS = {
    "narrow": Widths(unet=(96, 192, 384, 384), vae=(40, 80, 160, 160), vae_groups=8, text=256, text_heads=4),
    "sd15": Widths(unet=(320, 640, 1280, 1280), vae=(128, 256, 512, 512), vae_groups=32, text=768, text_heads=12),
}


def write_model(folder: Path, *, size: str) -> None:
    """In diffusers' format, float32."""
    widths = WIDTHS[size]
    torch.manual_seed(0)
    tokenizer = make_tokenizer(folder / "tokenizer-77")
    parts: dict[str, Any] = {
        "vae": make_vae(widths),
        "text_encoder": make_text_encoder(widths, tokenizer),
        "unet": UNet2DConditionModel(
            sample_size=64, block_out_channels=widths.unet, cross_attention_dim=widths.text, attention_head_dim=8
        ),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
        ),
    }
    pipeline: Any = StableDiffusionPipeline(
        **parts, tokenizer=tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """The quickstart's, with as many tokens as the real one has."""
    shutil.copytree(TOKENIZER, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"model_max_length": TOKENS}), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def make_vae(widths: Widths) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=widths.vae, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2, latent_channels=4, norm_num_groups=widths.vae_groups, sample_size=512,
    )  # fmt: skip


def make_text_encoder(widths: Widths, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=widths.text, intermediate_size=4 * widths.text, num_hidden_layers=12,
        num_attention_heads=widths.text_heads, max_position_embeddings=TOKENS, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()  # fmt: skip


def write_pictures(folder: Path, *, count: int, side_px: int) -> None:
    """Smooth colours, an eighth larger than the job's resolution, in a folder with metadata.jsonl: `datasets` reads it too."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    side = side_px + side_px // 8
    rows: list[str] = []
    for number in range(count):
        coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")
        rows.append(json.dumps({"file_name": f"{number:04d}.png", "text": CAPTION}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")

"""Pictures of published weights, drawn by diffusers alone."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline


def draw(model: Path, *, lora: Path | None = None, name: str = "") -> Any:
    """Pixels of one picture, as a user of diffusers draws it."""
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(lora, weight_name=name)
    generator = torch.Generator().manual_seed(0)
    drawn = pipeline("a red circle", num_inference_steps=2, height=64, width=64, generator=generator, output_type="np")
    return drawn.images[0]

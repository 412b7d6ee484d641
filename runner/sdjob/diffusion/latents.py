"""What a VAE's own configuration says of its latents: enough to train on encodings, with no VAE at hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.diffusion.family import read_config

# Where a configuration is silent: https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/autoencoders/autoencoder_kl.py
CHANNELS, WIDTHS, SCALING_FACTOR = 4, (64,), 0.18215


@dataclass(frozen=True)
class LatentFacts:
    channels: int
    downscaling: int
    """Pixels to a latent, along each side."""

    scaling_factor: float
    """Latents are multiplied by it before the UNet sees them."""

    def shape(self, *, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a picture of so many pixels."""
        return self.channels, height // self.downscaling, width // self.downscaling


def read_latents(model: Path) -> LatentFacts:
    config: dict[str, Any] = read_config(model / "vae" / "config.json")
    return LatentFacts(
        channels=config.get("latent_channels", CHANNELS),
        downscaling=2 ** (len(config.get("block_out_channels", WIDTHS)) - 1),
        scaling_factor=config.get("scaling_factor", SCALING_FACTOR),
    )

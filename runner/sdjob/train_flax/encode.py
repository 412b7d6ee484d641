"""Pictures to moments of their latents, in the VAE's own precision.

Axes: B pictures, H x W positions, C channels.
"""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
from jax import Array, lax

from sdjob.diffusion.family import read_base_model, read_config
from sdjob.train_flax.models.layers import Compute
from sdjob.train_flax.models.vae import AutoencoderKL, Posterior


def wide_enough(compute: Compute, model: Path) -> Compute:
    """float32 where SDXL's VAE asks for it, as on torch; in Stable Diffusion 1 and 2 the option is only that class's default."""
    asked = read_config(model / "vae" / "config.json").get("force_upcast", True)
    return replace(compute, dtype=jnp.float32, param_dtype=jnp.float32) if asked and is_sdxl(model) else compute


def is_sdxl(model: Path) -> bool:
    return read_base_model(model).family == "sdxl"


def encode_pictures(vae: AutoencoderKL, pixels_BHWC: Array) -> Posterior:
    return lax.stop_gradient(vae.encode(pixels_BHWC))


def drawn_latents(posterior: Posterior, *, posterior_BHWC: Array, scaling_factor: float) -> Array:
    """Scaled float32 latents (B, H, W, C): mean + std * the given standard normal draw."""
    return posterior.drawn(posterior_BHWC) * scaling_factor

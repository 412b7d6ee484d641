"""The frozen encoders: pictures to latents, captions to hidden states, in the compute precision.

Axes: B pictures, H x W positions, C channels, T tokens, D features.
"""

from jax import Array, lax

from sdjob.train_flax.models.clip_text import CLIPTextModel
from sdjob.train_flax.models.vae import AutoencoderKL


def encode_captions(text_encoder: CLIPTextModel, ids_BT: Array) -> Array:
    """(B, T, D): the last hidden state, as Stable Diffusion 1 and 2 take it."""
    return lax.stop_gradient(text_encoder(ids_BT).last_BTD)


def encode_pictures(vae: AutoencoderKL, pixels_BHWC: Array, *, posterior_BHWC: Array) -> Array:
    """Scaled float32 latents (B, H, W, C): mean + std * the given standard normal draw."""
    return lax.stop_gradient(vae.encode(pixels_BHWC).drawn(posterior_BHWC) * vae.config.scaling_factor)

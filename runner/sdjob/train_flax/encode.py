"""The frozen encoders: pictures to moments of their latents, captions to hidden states, in the compute precision. What they
return has names: a batch carries it under the same ones where it was encoded before the training.

Axes: B pictures, H x W positions, C channels, T tokens, D features.
"""

from jax import Array, lax

from sdjob.train_flax.models.clip_text import CLIPTextModel
from sdjob.train_flax.models.vae import AutoencoderKL, Posterior


def encode_captions(text_encoder: CLIPTextModel, ids_BT: Array) -> dict[str, Array]:
    """The last hidden state, as Stable Diffusion 1 and 2 take it."""
    return {"states_BTD": lax.stop_gradient(text_encoder(ids_BT).last_BTD)}


def encode_pictures(vae: AutoencoderKL, pixels_BHWC: Array) -> Posterior:
    return lax.stop_gradient(vae.encode(pixels_BHWC))


def drawn_latents(posterior: Posterior, *, posterior_BHWC: Array, scaling_factor: float) -> Array:
    """Scaled float32 latents (B, H, W, C): mean + std * the given standard normal draw."""
    return posterior.drawn(posterior_BHWC) * scaling_factor

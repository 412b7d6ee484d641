"""The frozen encoders: pictures to latents, captions to hidden states. Both run without gradients, in the compute precision.

Axes: B pictures, C latent channels, H x W latent positions, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """(B, T) int64; what is longer than the model's T tokens is cut off."""
    encoded = tokenizer(
        list(captions),
        max_length=tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids


@torch.no_grad()
def encode_captions(text_encoder: CLIPTextModel, ids_BT: Tensor) -> Tensor:
    """(B, T, D): the last hidden state, as Stable Diffusion 1 and 2 take it."""
    return text_encoder(ids_BT, return_dict=False)[0]


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels_BCHW: Tensor, *, posterior_BCHW: Tensor) -> Tensor:
    """Scaled float32 latents (B, C, H, W): mean + std * the given standard normal draw."""
    posterior = vae.encode(pixels_BCHW.to(vae.dtype), return_dict=False)[0]
    latents = posterior.mean.float() + posterior.std.float() * posterior_BCHW
    return latents * vae.config["scaling_factor"]

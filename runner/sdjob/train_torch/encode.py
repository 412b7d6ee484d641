"""The frozen encoders: pictures to moments of their latents, captions to hidden states. Both run without gradients, in the
compute precision. What they return has names: a batch carries it under the same ones where it was encoded before the training.

Axes: B pictures, C latent channels, H x W latent positions, T tokens, D features.
"""

from collections.abc import Mapping, Sequence

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
def encode_captions(text_encoder: CLIPTextModel, ids_BT: Tensor) -> dict[str, Tensor]:
    """The last hidden state, as Stable Diffusion 1 and 2 take it."""
    return {"states_BTD": text_encoder(ids_BT, return_dict=False)[0]}


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels_BCHW: Tensor) -> dict[str, Tensor]:
    """The posterior's mean and log-variance: nothing is drawn yet."""
    posterior = vae.encode(pixels_BCHW.to(vae.dtype), return_dict=False)[0]
    return {"mean_BCHW": posterior.mean, "log_variance_BCHW": posterior.logvar}


def drawn_latents(moments: Mapping[str, Tensor], *, posterior_BCHW: Tensor, scaling_factor: float) -> Tensor:
    """Scaled float32 latents (B, C, H, W): mean + std * the given standard normal draw."""
    std_BCHW = torch.exp(0.5 * moments["log_variance_BCHW"].float())
    return (moments["mean_BCHW"].float() + std_BCHW * posterior_BCHW) * scaling_factor

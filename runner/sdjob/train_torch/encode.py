"""Pictures to moments of their latents, without gradients. What is returned has names: a batch carries it under the same ones
where it was encoded before the training.

Axes: B pictures, C latent channels, H x W latent positions.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from sdjob.diffusion.family import Family, read_config


def vae_dtype(model: Path, *, family: Family, compute: torch.dtype) -> torch.dtype:
    """float32 where SDXL's VAE asks for it (https://huggingface.co/madebyollin/sdxl-vae-fp16-fix tells why); in Stable
    Diffusion 1 and 2 the option is only that class's default."""
    asked = read_config(model / "vae" / "config.json").get("force_upcast", True)
    return torch.float32 if family == "sdxl" and asked else compute


def in_own_precision(vae: AutoencoderKL) -> AbstractContextManager[object]:
    """Autocast would round in a VAE that was made float32 for its range."""
    return torch.autocast(vae.device.type, enabled=False) if vae.dtype == torch.float32 else nullcontext()


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels_BCHW: Tensor) -> dict[str, Tensor]:
    """The posterior's mean and log-variance, in the VAE's own precision: nothing is drawn yet."""
    with in_own_precision(vae):
        posterior = vae.encode(pixels_BCHW.to(vae.dtype), return_dict=False)[0]
    return {"mean_BCHW": posterior.mean, "log_variance_BCHW": posterior.logvar}


def drawn_latents(moments: Mapping[str, Tensor], *, posterior_BCHW: Tensor, scaling_factor: float) -> Tensor:
    """Scaled float32 latents (B, C, H, W): mean + std * the given standard normal draw."""
    std_BCHW = torch.exp(0.5 * moments["log_variance_BCHW"].float())
    return (moments["mean_BCHW"].float() + std_BCHW * posterior_BCHW) * scaling_factor

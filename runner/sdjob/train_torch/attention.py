"""The attention kernel where the job asks for another than torch's own.

xformers replaces how attention is computed from queries, keys and values; the layers that make those stay as they are, with
peft's adapters in them. So the order of adding adapters and changing the kernel does not matter.
"""

import torch
from diffusers.models.attention_processor import XFormersAttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from sdjob.core.errors import UnavailableError

TRIAL_SHAPE = (1, 64, 8, 40)  # batch, positions, heads, width of a head: as in Stable Diffusion 1.5


def use_xformers(*models: UNet2DConditionModel | AutoencoderKL, device: torch.device, dtype: torch.dtype) -> None:
    """On every attention of the models; UnavailableError where xformers is absent, or has no kernel for this device."""
    try_xformers(device, dtype=dtype)
    set_xformers(*models)


def set_xformers(*models: UNet2DConditionModel | AutoencoderKL) -> None:
    for model in models:
        model.set_attn_processor(XFormersAttnProcessor())


def try_xformers(device: torch.device, *, dtype: torch.dtype) -> None:
    """Forward and backward once, so that what is missing is said before the first step."""
    try:
        from xformers import ops  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra, for CUDA alone)

        states = torch.randn(TRIAL_SHAPE, device=device, dtype=dtype, requires_grad=True)
        ops.memory_efficient_attention(states, states, states).sum().backward()
    # What xformers raises where a build and a device do not fit: no kernel is a NotImplementedError, a build for another torch
    # an ImportError or an OSError, and CUDA's own failures are RuntimeErrors.
    except (ImportError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        fitting = f"pip install xformers torch=={torch.__version__.partition('+')[0]}"
        raise UnavailableError(
            f"xformers does not work here, on {device} in {dtype}: {error}",
            where="train.attention",
            next_step=f"Install the xformers that fits this torch (`{fitting}`), or set sdpa.",
        ) from error

"""The VAE of the quickstart's base model, before its training: a pass-through of the patches' mean colours."""

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from shapes import SIZE_PX

LATENT_CHANNELS = 4


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=1,  # more groups normalise the picture's own colours away
        sample_size=SIZE_PX,
    )


@torch.no_grad()
def pass_through(vae: AutoencoderKL) -> None:
    """Starts the VAE as the mean colour of each 8 x 8 patch: channels 0-2 carry +RGB, 3-5 -RGB.

    silu(x) - silu(-x) = x, so the pair survives the one activation between the last norm and the last convolution.
    """
    for name, module in vae.named_modules():
        if name.endswith(("resnets.0", "resnets.1")):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                copy_channels(module.conv_shortcut)
        if name.endswith("attentions.0"):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
        if name.endswith("downsamplers.0"):
            copy_channels(module.conv, kernel=torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))
        if name.endswith("upsamplers.0"):
            copy_channels(module.conv)
    split_sign(vae.encoder.conv_in)
    join_sign(vae.encoder.conv_out)
    split_sign(vae.decoder.conv_in)
    join_sign(vae.decoder.conv_out)
    vae.encoder.conv_out.bias[LATENT_CHANNELS:] = -6.0
    for conv, count in ((vae.quant_conv, 2 * LATENT_CHANNELS), (vae.post_quant_conv, LATENT_CHANNELS)):
        conv.weight.copy_(torch.eye(count)[:, :, None, None])
        nn.init.zeros_(conv.bias)


def copy_channels(conv: nn.Conv2d, *, kernel: Tensor | None = None) -> None:
    side = conv.weight.shape[-1]
    if kernel is None:
        kernel = torch.zeros(side, side)
        kernel[side // 2, side // 2] = 1.0
    for channel in range(6):
        conv.weight[channel] = 0.0
        conv.weight[channel, channel] = kernel
        conv.bias[channel] = 0.0


def split_sign(conv: nn.Conv2d) -> None:
    # The norms divide by the deviation over all channels: steady channels keep it, and so a pale picture stays pale.
    conv.bias[6::2] = 1.5
    conv.bias[7::2] = -1.5
    for channel in range(3):
        for target, sign in ((channel, 1.0), (channel + 3, -1.0)):
            conv.weight[target] = 0.0
            conv.weight[target, channel, 1, 1] = sign
            conv.bias[target] = 0.0


def join_sign(conv: nn.Conv2d) -> None:
    # The norm before it divides by the deviation over all channels, of which six carry colours.
    gain = math.sqrt(6 / conv.in_channels)
    conv.weight[:3] = 0.0
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = gain
        conv.weight[channel, channel + 3, 1, 1] = -gain
        conv.bias[channel] = 0.0

"""Pictures to latents and back: diffusers' AutoencoderKL.

Axes: B pictures, H x W positions, C channels; pixels are in [-1, 1].
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from sdjob.train_flax.models.blocks import Downsample, Resnet, Upsample
from sdjob.train_flax.models.config import VaeConfig
from sdjob.train_flax.models.layers import Compute, Conv, GroupNorm, Rngs
from sdjob.train_flax.models.transformer import Attention, run_block

EPSILON = 1e-6  # of all norms: https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/autoencoders/vae.py
LOG_VARIANCE_RANGE = (-30.0, 20.0)  # the same file's DiagonalGaussianDistribution


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Posterior:
    """The normal distribution of a picture's latents, before the scaling factor; float32."""

    mean_BHWC: Array
    log_variance_BHWC: Array

    def drawn(self, standard_normal_BHWC: Array) -> Array:
        return self.mean_BHWC + jnp.exp(0.5 * self.log_variance_BHWC) * standard_normal_BHWC


def vae_resnet(num_inputs: int, num_outputs: int, *, config: VaeConfig, compute: Compute, rngs: Rngs) -> Resnet:
    return Resnet(
        num_inputs, num_outputs, time_width=None, num_groups=config.num_groups, epsilon=EPSILON, compute=compute, rngs=rngs
    )


class PictureAttention(Attention):
    """Of all positions to each other, in one head."""

    def __init__(self, width: int, *, config: VaeConfig, compute: Compute, rngs: Rngs) -> None:
        super().__init__(width, num_heads=1, bias=True, compute=compute, rngs=rngs)
        self.group_norm = GroupNorm(width, num_groups=config.num_groups, epsilon=EPSILON, compute=compute)

    def attend_to_itself(self, hidden_BHWC: Array) -> Array:
        B, H, W, C = hidden_BHWC.shape
        return hidden_BHWC + self(self.group_norm(hidden_BHWC).reshape(B, H * W, C)).reshape(B, H, W, C)


class MidBlock(nnx.Module):
    def __init__(self, width: int, *, config: VaeConfig, compute: Compute, rngs: Rngs) -> None:
        self.resnets = nnx.List([vae_resnet(width, width, config=config, compute=compute, rngs=rngs) for _ in range(2)])
        attentions = [PictureAttention(width, config=config, compute=compute, rngs=rngs)] if config.mid_attention else []
        self.attentions = nnx.List(attentions)

    def __call__(self, hidden_BHWC: Array) -> Array:
        hidden_BHWC = self.resnets[0](hidden_BHWC)
        for attention in self.attentions:
            hidden_BHWC = attention.attend_to_itself(hidden_BHWC)
        return self.resnets[1](hidden_BHWC)


class EncoderBlock(nnx.Module):
    def __init__(self, num_inputs: int, num_outputs: int, *, last: bool, config: VaeConfig, compute: Compute, rngs: Rngs) -> None:
        inputs = [num_inputs] + [num_outputs] * (config.layers - 1)
        self.resnets = nnx.List([vae_resnet(n, num_outputs, config=config, compute=compute, rngs=rngs) for n in inputs])
        self.downsamplers = nnx.List([] if last else [Downsample(num_outputs, lopsided=True, compute=compute, rngs=rngs)])

    def __call__(self, hidden_BHWC: Array) -> Array:
        for layer in (*self.resnets, *self.downsamplers):
            hidden_BHWC = layer(hidden_BHWC)
        return hidden_BHWC


class DecoderBlock(nnx.Module):
    def __init__(self, num_inputs: int, num_outputs: int, *, last: bool, config: VaeConfig, compute: Compute, rngs: Rngs) -> None:
        inputs = [num_inputs] + [num_outputs] * config.layers
        self.resnets = nnx.List([vae_resnet(n, num_outputs, config=config, compute=compute, rngs=rngs) for n in inputs])
        self.upsamplers = nnx.List([] if last else [Upsample(num_outputs, compute=compute, rngs=rngs)])

    def __call__(self, hidden_BHWC: Array) -> Array:
        for layer in (*self.resnets, *self.upsamplers):
            hidden_BHWC = layer(hidden_BHWC)
        return hidden_BHWC


class Encoder(nnx.Module):
    def __init__(self, config: VaeConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        widths = config.widths
        self.conv_in = Conv(config.in_channels, widths[0], compute=compute, rngs=rngs)
        self.down_blocks = nnx.List([
            EncoderBlock(before, width, last=n == len(widths) - 1, config=config, compute=compute, rngs=rngs)
            for n, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        ])  # fmt: skip
        self.mid_block = MidBlock(widths[-1], config=config, compute=compute, rngs=rngs)
        self.conv_norm_out = GroupNorm(widths[-1], num_groups=config.num_groups, epsilon=EPSILON, compute=compute)
        # A mean and a log-variance for every latent channel.
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels, compute=compute, rngs=rngs)

    def __call__(self, pixels_BHWC: Array) -> Array:
        hidden_BHWC = self.conv_in(pixels_BHWC)
        for block in (*self.down_blocks, self.mid_block):
            hidden_BHWC = run_block(block, hidden_BHWC, compute=self.compute)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(hidden_BHWC)))


class Decoder(nnx.Module):
    def __init__(self, config: VaeConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        widths = config.widths[::-1]
        self.conv_in = Conv(config.latent_channels, widths[0], compute=compute, rngs=rngs)
        self.mid_block = MidBlock(widths[0], config=config, compute=compute, rngs=rngs)
        self.up_blocks = nnx.List([
            DecoderBlock(before, width, last=n == len(widths) - 1, config=config, compute=compute, rngs=rngs)
            for n, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        ])  # fmt: skip
        self.conv_norm_out = GroupNorm(widths[-1], num_groups=config.num_groups, epsilon=EPSILON, compute=compute)
        self.conv_out = Conv(widths[-1], config.out_channels, compute=compute, rngs=rngs)

    def __call__(self, latents_BHWC: Array) -> Array:
        hidden_BHWC = self.conv_in(latents_BHWC)
        for block in (self.mid_block, *self.up_blocks):
            hidden_BHWC = run_block(block, hidden_BHWC, compute=self.compute)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(hidden_BHWC)))


class AutoencoderKL(nnx.Module):
    def __init__(self, config: VaeConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.config, self.compute = config, compute
        channels = config.latent_channels
        self.encoder = Encoder(config, compute=compute, rngs=rngs)
        self.decoder = Decoder(config, compute=compute, rngs=rngs)
        self.quant_conv = Conv(2 * channels, 2 * channels, size=1, compute=compute, rngs=rngs) if config.quant_conv else None
        self.post_quant_conv = Conv(channels, channels, size=1, compute=compute, rngs=rngs) if config.post_quant_conv else None

    def encode(self, pixels_BHWC: Array) -> Posterior:
        moments = self.encoder(pixels_BHWC)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean_BHWC, log_variance_BHWC = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return Posterior(mean_BHWC, jnp.clip(log_variance_BHWC, *LOG_VARIANCE_RANGE))

    def decode(self, latents_BHWC: Array) -> Array:
        """Pixels (B, H, W, 3), in the compute dtype; the latents are not scaled any more."""
        if self.post_quant_conv is not None:
            latents_BHWC = self.post_quant_conv(latents_BHWC)
        return self.decoder(latents_BHWC)

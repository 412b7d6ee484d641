"""The denoising network of Stable Diffusion 1.x, 2.x and XL: diffusers' UNet2DConditionModel.

Axes: B pictures, H x W latent positions, C channels, T text tokens, D features, E features of the time embedding,
P features of the pooled text.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from sdjob.train_flax.models.blocks import Downsample, Resnet, TimeEmbedding, Upsample, sinusoids
from sdjob.train_flax.models.config import UNetConfig
from sdjob.train_flax.models.layers import Compute, Conv, GroupNorm, Rngs
from sdjob.train_flax.models.transformer import Transformer, run_block

TIME_FACTOR = 4  # features of the time embedding for one of the first level


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AddedConditions:
    """What SDXL is told beside the prompt."""

    pooled_BP: Array
    """The second text encoder's projected, pooled output."""

    time_ids_B6: Array
    """(original height, original width, crop top, crop left, target height, target width), in pixels."""


@dataclass(frozen=True)
class Level:
    """What the blocks of one resolution are made of."""

    config: UNetConfig
    number: int
    """0 is the full resolution."""

    @property
    def width(self) -> int:
        return self.config.widths[self.number]

    def resnet(self, num_inputs: int, *, compute: Compute, rngs: Rngs) -> Resnet:
        return Resnet(
            num_inputs,
            self.width,
            time_width=TIME_FACTOR * self.config.widths[0],
            num_groups=self.config.num_groups,
            epsilon=self.config.epsilon,
            compute=compute,
            rngs=rngs,
        )

    def transformer(self, *, compute: Compute, rngs: Rngs) -> Transformer:
        return Transformer(
            self.width,
            num_blocks=self.config.depths[self.number],
            num_heads=self.config.num_heads[self.number],
            text_width=self.config.text_widths[self.number],
            num_groups=self.config.num_groups,
            linear_projection=self.config.linear_projection,
            compute=compute,
            rngs=rngs,
        )


class DownBlock(nnx.Module):
    """CrossAttnDownBlock2D, or DownBlock2D where it does not attend."""

    def __init__(self, level: Level, num_inputs: int, *, attends: bool, last: bool, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        count = level.config.layers[level.number]
        inputs = [num_inputs] + [level.width] * (count - 1)
        self.resnets = nnx.List([level.resnet(n, compute=compute, rngs=rngs) for n in inputs])
        self.attentions = nnx.List([level.transformer(compute=compute, rngs=rngs) for _ in range(count if attends else 0)])
        self.downsamplers = nnx.List([] if last else [Downsample(level.width, compute=compute, rngs=rngs)])

    def __call__(self, hidden_BHWC: Array, time_BE: Array, text_BTD: Array) -> tuple[Array, list[Array]]:
        """(the output, what the up blocks will want to see of this one)."""
        skips: list[Array] = []
        for number, resnet in enumerate(self.resnets):
            hidden_BHWC = run_block(resnet, hidden_BHWC, time_BE, compute=self.compute)
            if self.attentions:
                hidden_BHWC = self.attentions[number](hidden_BHWC, text_BTD)
            skips.append(hidden_BHWC)
        for downsampler in self.downsamplers:
            hidden_BHWC = downsampler(hidden_BHWC)
            skips.append(hidden_BHWC)
        return hidden_BHWC, skips


class MidBlock(nnx.Module):
    def __init__(self, level: Level, *, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        self.resnets = nnx.List([level.resnet(level.width, compute=compute, rngs=rngs) for _ in range(2)])
        self.attentions = nnx.List([level.transformer(compute=compute, rngs=rngs)])

    def __call__(self, hidden_BHWC: Array, time_BE: Array, text_BTD: Array) -> Array:
        hidden_BHWC = run_block(self.resnets[0], hidden_BHWC, time_BE, compute=self.compute)
        hidden_BHWC = self.attentions[0](hidden_BHWC, text_BTD)
        return run_block(self.resnets[1], hidden_BHWC, time_BE, compute=self.compute)


class UpBlock(nnx.Module):
    """CrossAttnUpBlock2D, or UpBlock2D where it does not attend; `inputs` are the channels of its resnets, skips included."""

    def __init__(self, level: Level, inputs: list[int], *, attends: bool, last: bool, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        self.resnets = nnx.List([level.resnet(n, compute=compute, rngs=rngs) for n in inputs])
        self.attentions = nnx.List([level.transformer(compute=compute, rngs=rngs) for _ in (inputs if attends else [])])
        self.upsamplers = nnx.List([] if last else [Upsample(level.width, compute=compute, rngs=rngs)])

    def __call__(self, hidden_BHWC: Array, skips: list[Array], time_BE: Array, text_BTD: Array) -> Array:
        """Takes its own skips off the end of the list; what is left last then has the size to come up to."""
        for number, resnet in enumerate(self.resnets):
            hidden_BHWC = jnp.concatenate([hidden_BHWC, skips.pop()], axis=-1)
            hidden_BHWC = run_block(resnet, hidden_BHWC, time_BE, compute=self.compute)
            if self.attentions:
                hidden_BHWC = self.attentions[number](hidden_BHWC, text_BTD)
        for upsampler in self.upsamplers:
            _, height, width, _ = skips[-1].shape
            hidden_BHWC = upsampler(hidden_BHWC, (height, width))
        return hidden_BHWC


def up_inputs(config: UNetConfig, number: int) -> list[int]:
    """Channels into each resnet of the up block at level `number`: from below or from the resnet before, plus the skip's."""
    width = config.widths[number]
    below = config.widths[min(number + 1, len(config.widths) - 1)]
    above = config.widths[max(number - 1, 0)]
    count = config.layers[number] + 1
    skips = [width] * (count - 1) + [above]
    return [hidden + skip for hidden, skip in zip([below] + [width] * (count - 1), skips, strict=True)]


class UNet2DConditionModel(nnx.Module):
    def __init__(self, config: UNetConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.config, self.compute = config, compute
        widths, levels = config.widths, [Level(config, number) for number in range(len(config.widths))]
        last = len(levels) - 1
        self.conv_in = Conv(config.in_channels, widths[0], compute=compute, rngs=rngs)
        self.time_embedding = TimeEmbedding(widths[0], TIME_FACTOR * widths[0], compute=compute, rngs=rngs)
        self.add_embedding = (
            TimeEmbedding(config.text_time.num_inputs, TIME_FACTOR * widths[0], compute=compute, rngs=rngs)
            if config.text_time
            else None
        )
        self.down_blocks = nnx.List([
            DownBlock(level, widths[max(n - 1, 0)], attends=config.down_attends[n], last=n == last, compute=compute, rngs=rngs)
            for n, level in enumerate(levels)
        ])  # fmt: skip
        self.mid_block = MidBlock(levels[-1], compute=compute, rngs=rngs) if config.has_mid_block else None
        self.up_blocks = nnx.List([
            UpBlock(levels[n], up_inputs(config, n), attends=config.up_attends[last - n], last=n == 0, compute=compute, rngs=rngs)
            for n in reversed(range(len(levels)))
        ])  # fmt: skip
        self.conv_norm_out = GroupNorm(widths[0], num_groups=config.num_groups, epsilon=config.epsilon, compute=compute)
        self.conv_out = Conv(widths[0], config.out_channels, compute=compute, rngs=rngs)

    def __call__(self, latents_BHWC: Array, timesteps_B: Array, text_BTD: Array, added: AddedConditions | None = None) -> Array:
        """The prediction (B, H, W, C), in the compute dtype. Any height and width; `added` is SDXL's and only its."""
        time_BE = self.embed_time(timesteps_B, added)
        text_BTD = text_BTD.astype(self.compute.dtype)
        hidden_BHWC = self.conv_in(latents_BHWC)
        skips = [hidden_BHWC]
        for down_block in self.down_blocks:
            hidden_BHWC, its_skips = down_block(hidden_BHWC, time_BE, text_BTD)
            skips += its_skips
        if self.mid_block is not None:
            hidden_BHWC = self.mid_block(hidden_BHWC, time_BE, text_BTD)
        for up_block in self.up_blocks:
            hidden_BHWC = up_block(hidden_BHWC, skips, time_BE, text_BTD)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(hidden_BHWC)))

    def embed_time(self, timesteps_B: Array, added: AddedConditions | None) -> Array:
        """(B, E): the timestep, and SDXL's added conditions on top."""
        if (added is None) != (self.config.text_time is None):
            raise ValueError("SDXL needs its added conditions, and the other families take none")
        time_BE = self.time_embedding(self._sinusoids(timesteps_B, width=self.config.widths[0]))
        if added is None or self.config.text_time is None or self.add_embedding is None:
            return time_BE
        ids = self._sinusoids(added.time_ids_B6.reshape(-1), width=self.config.text_time.time_width)
        ids = ids.reshape(added.time_ids_B6.shape[0], -1)
        return time_BE + self.add_embedding(jnp.concatenate([added.pooled_BP.astype(ids.dtype), ids], axis=-1))

    def _sinusoids(self, values_B: Array, *, width: int) -> Array:
        return sinusoids(values_B, width=width, flip_sin_to_cos=self.config.flip_sin_to_cos, freq_shift=self.config.freq_shift)

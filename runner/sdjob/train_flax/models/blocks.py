"""The convolutional blocks that the UNet and the VAE share, and the embedding of timesteps.

Axes: B pictures, H x W positions, C channels, E features of the time embedding.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from sdjob.train_flax.models.layers import Compute, Conv, Dense, GroupNorm, Rngs

MAX_PERIOD = 10_000  # of the timestep's sinusoids, in timesteps: arXiv 2006.11239, appendix B


def sinusoids(values_B: Array, *, width: int, flip_sin_to_cos: bool, freq_shift: float) -> Array:
    """(B, width) float32: sines and cosines of falling frequency; flipped, the cosines come first."""
    half = width // 2
    frequencies = jnp.exp(-math.log(MAX_PERIOD) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift))
    angles = values_B.astype(jnp.float32)[:, None] * frequencies[None]
    parts = (jnp.cos(angles), jnp.sin(angles)) if flip_sin_to_cos else (jnp.sin(angles), jnp.cos(angles))
    return jnp.concatenate(parts, axis=-1)


class TimeEmbedding(nnx.Module):
    def __init__(self, num_inputs: int, width: int, *, compute: Compute, rngs: Rngs) -> None:
        self.linear_1 = Dense(num_inputs, width, compute=compute, rngs=rngs)
        self.linear_2 = Dense(width, width, compute=compute, rngs=rngs)

    def __call__(self, inputs: Array) -> Array:
        return self.linear_2(jax.nn.silu(self.linear_1(inputs)))


class Resnet(nnx.Module):
    """Two convolutions beside a shortcut; `time_width` None is the VAE's, which knows no time."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        time_width: int | None,
        num_groups: int,
        epsilon: float,
        compute: Compute,
        rngs: Rngs,
    ) -> None:
        self.norm1 = GroupNorm(num_inputs, num_groups=num_groups, epsilon=epsilon, compute=compute)
        self.conv1 = Conv(num_inputs, num_outputs, compute=compute, rngs=rngs)
        self.time_emb_proj = Dense(time_width, num_outputs, compute=compute, rngs=rngs) if time_width else None
        self.norm2 = GroupNorm(num_outputs, num_groups=num_groups, epsilon=epsilon, compute=compute)
        self.conv2 = Conv(num_outputs, num_outputs, compute=compute, rngs=rngs)
        same = num_inputs == num_outputs
        self.conv_shortcut = None if same else Conv(num_inputs, num_outputs, size=1, compute=compute, rngs=rngs)

    def __call__(self, inputs_BHWC: Array, time_BE: Array | None = None) -> Array:
        hidden = self.conv1(jax.nn.silu(self.norm1(inputs_BHWC)))
        if self.time_emb_proj is not None:
            assert time_BE is not None
            hidden = hidden + self.time_emb_proj(jax.nn.silu(time_BE))[:, None, None]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (inputs_BHWC if self.conv_shortcut is None else self.conv_shortcut(inputs_BHWC))


class Downsample(nnx.Module):
    """Halves height and width. The VAE's pads below and to the right alone."""

    def __init__(self, num_channels: int, *, lopsided: bool = False, compute: Compute, rngs: Rngs) -> None:
        padding = ((0, 1), (0, 1)) if lopsided else 1
        self.conv = Conv(num_channels, num_channels, stride=2, padding=padding, compute=compute, rngs=rngs)

    def __call__(self, hidden_BHWC: Array) -> Array:
        return self.conv(hidden_BHWC)


class Upsample(nnx.Module):
    """To a given height and width, by default twice its own: what was 9 x 11 comes up from 5 x 6 to 9 x 11 again."""

    def __init__(self, num_channels: int, *, compute: Compute, rngs: Rngs) -> None:
        self.conv = Conv(num_channels, num_channels, compute=compute, rngs=rngs)

    def __call__(self, hidden_BHWC: Array, size: tuple[int, int] | None = None) -> Array:
        height, width = size or (2 * hidden_BHWC.shape[1], 2 * hidden_BHWC.shape[2])
        return self.conv(stretched(stretched(hidden_BHWC, axis=1, length=height), axis=2, length=width))


def stretched(array: Array, *, axis: int, length: int) -> Array:
    """Nearest neighbour as torch rounds: position i takes floor(i * old / new); jax.image.resize takes pixel centres."""
    old = array.shape[axis]
    if length == 2 * old:
        return jnp.repeat(array, 2, axis=axis)
    return jnp.take(array, np.arange(length) * old // length, axis=axis)

"""The transformer between a UNet's convolutions, as diffusers' Transformer2DModel.

Axes: B pictures, H x W positions, C channels; S = H * W tokens of the picture, T of the text, D features.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from sdjob.train_flax.models.layers import Compute, Conv, Dense, GroupNorm, LayerNorm, Rngs

NORM_EPSILON = 1e-6  # https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/transformers/transformer_2d.py
FEED_FORWARD_FACTOR = 4  # hidden features of the feed-forward part for one of its input


class Attention(nnx.Module):
    """Of a sequence to itself, or to `context_width` features of another."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        context_width: int | None = None,
        bias: bool = False,
        compute: Compute,
        rngs: Rngs,
    ) -> None:
        self.compute = compute
        self.num_heads = num_heads
        context_width = context_width or width
        self.to_q = Dense(width, width, bias=bias, compute=compute, rngs=rngs)
        self.to_k = Dense(context_width, width, bias=bias, compute=compute, rngs=rngs)
        self.to_v = Dense(context_width, width, bias=bias, compute=compute, rngs=rngs)
        self.to_out = nnx.List([Dense(width, width, compute=compute, rngs=rngs)])

    def __call__(self, tokens_BSD: Array, context_BTD: Array | None = None) -> Array:
        context_BTD = tokens_BSD if context_BTD is None else context_BTD
        queries, keys, values = self.to_q(tokens_BSD), self.to_k(context_BTD), self.to_v(context_BTD)
        attended_BSNF = self.compute.attention(self._split(queries), self._split(keys), self._split(values))
        return self.to_out[0](attended_BSNF.reshape(queries.shape))

    def _split(self, tokens_BSD: Array) -> Array:
        B, S, D = tokens_BSD.shape
        return tokens_BSD.reshape(B, S, self.num_heads, D // self.num_heads)


class GatedUnit(nnx.Module):
    """GEGLU (arXiv 2002.05202): one half of the projection, times gelu of the other."""

    def __init__(self, width: int, hidden: int, *, compute: Compute, rngs: Rngs) -> None:
        self.proj = Dense(width, 2 * hidden, compute=compute, rngs=rngs)

    def __call__(self, tokens_BSD: Array) -> Array:
        values, gates = jnp.split(self.proj(tokens_BSD), 2, axis=-1)
        return values * jax.nn.gelu(gates, approximate=False)


class FeedForward(nnx.Module):
    def __init__(self, width: int, *, compute: Compute, rngs: Rngs) -> None:
        hidden = FEED_FORWARD_FACTOR * width
        first = GatedUnit(width, hidden, compute=compute, rngs=rngs)
        # Numbered as in diffusers, where a dropout that is never used stands between them.
        self.net = nnx.Dict({"0": first, "2": Dense(hidden, width, compute=compute, rngs=rngs)})

    def __call__(self, tokens_BSD: Array) -> Array:
        return self.net["2"](self.net["0"](tokens_BSD))


class TransformerBlock(nnx.Module):
    def __init__(self, width: int, *, num_heads: int, text_width: int, compute: Compute, rngs: Rngs) -> None:
        self.norm1 = LayerNorm(width, epsilon=1e-5, compute=compute)
        self.attn1 = Attention(width, num_heads=num_heads, compute=compute, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=1e-5, compute=compute)
        self.attn2 = Attention(width, num_heads=num_heads, context_width=text_width, compute=compute, rngs=rngs)
        self.norm3 = LayerNorm(width, epsilon=1e-5, compute=compute)
        self.ff = FeedForward(width, compute=compute, rngs=rngs)

    def __call__(self, tokens_BSD: Array, text_BTD: Array) -> Array:
        tokens_BSD = tokens_BSD + self.attn1(self.norm1(tokens_BSD))
        tokens_BSD = tokens_BSD + self.attn2(self.norm2(tokens_BSD), text_BTD)
        return tokens_BSD + self.ff(self.norm3(tokens_BSD))


class Transformer(nnx.Module):
    def __init__(
        self,
        width: int,
        *,
        num_blocks: int,
        num_heads: int,
        text_width: int,
        num_groups: int,
        linear_projection: bool,
        compute: Compute,
        rngs: Rngs,
    ) -> None:
        self.compute = compute
        self.norm = GroupNorm(width, num_groups=num_groups, epsilon=NORM_EPSILON, compute=compute)
        self.proj_in = _projection(width, linear=linear_projection, compute=compute, rngs=rngs)
        self.transformer_blocks = nnx.List([
            TransformerBlock(width, num_heads=num_heads, text_width=text_width, compute=compute, rngs=rngs)
            for _ in range(num_blocks)
        ])  # fmt: skip
        self.proj_out = _projection(width, linear=linear_projection, compute=compute, rngs=rngs)

    def __call__(self, hidden_BHWC: Array, text_BTD: Array) -> Array:
        B, H, W, C = hidden_BHWC.shape
        tokens_BSD = self.proj_in(self.norm(hidden_BHWC)).reshape(B, H * W, C)
        for block in self.transformer_blocks:
            tokens_BSD = run_block(block, tokens_BSD, text_BTD, compute=self.compute)
        return hidden_BHWC + self.proj_out(tokens_BSD.reshape(B, H, W, C))


def _projection(width: int, *, linear: bool, compute: Compute, rngs: Rngs) -> Dense | Conv:
    """The same function twice; only the form of its weights differs between SD 1.x and the later ones."""
    if linear:
        return Dense(width, width, compute=compute, rngs=rngs)
    return Conv(width, width, size=1, compute=compute, rngs=rngs)


def run_block(block: Callable[..., Array], *inputs: Array, compute: Compute) -> Array:
    """Calls the block; with gradient checkpointing its inside is computed anew in the backward pass."""
    if not compute.remat:
        return block(*inputs)
    # nnx.remat writes parameters back into the module, which jax refuses below a gradient that was taken outside.
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda inner, *arrays: nnx.merge(graph, inner)(*arrays))(state, *inputs)

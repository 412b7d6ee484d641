"""The text encoders: transformers' CLIPTextModel, and CLIPTextModelWithProjection, SDXL's second.

Axes: B captions, T tokens, D features, P features of the projection, N heads, F features of a head.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from sdjob.train_flax.models.attention import whole_attention
from sdjob.train_flax.models.config import TextConfig
from sdjob.train_flax.models.layers import Compute, Dense, Embedding, LayerNorm, Rngs
from sdjob.train_flax.models.transformer import run_block

# Configurations from before https://github.com/huggingface/transformers/pull/24773 say 2, whatever the tokenizer's end is.
LEGACY_EOS_ID = 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextStates:
    """What is not used is not computed, under jit."""

    last_BTD: Array
    """Behind the final norm: what Stable Diffusion 1 and 2 take."""

    layers: tuple[Array, ...]
    """(B, T, D) each: the embeddings, then the output of every layer, before the final norm. SDXL takes layers[-2]."""

    pooled_BD: Array
    """last_BTD at the caption's end; with projection (B, P)."""


class TextEmbeddings(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.token_embedding = Embedding(config.num_ids, config.width, compute=compute, rngs=rngs)
        self.position_embedding = Embedding(config.max_tokens, config.width, compute=compute, rngs=rngs)

    def __call__(self, ids_BT: Array) -> Array:
        return self.token_embedding(ids_BT) + self.position_embedding(jnp.arange(ids_BT.shape[1]))


class TextAttention(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.num_heads = config.num_heads
        self.q_proj = Dense(config.width, config.width, compute=compute, rngs=rngs)
        self.k_proj = Dense(config.width, config.width, compute=compute, rngs=rngs)
        self.v_proj = Dense(config.width, config.width, compute=compute, rngs=rngs)
        self.out_proj = Dense(config.width, config.width, compute=compute, rngs=rngs)

    def __call__(self, states_BTD: Array) -> Array:
        B, T, D = states_BTD.shape
        split = (B, T, self.num_heads, D // self.num_heads)
        queries, keys, values = (layer(states_BTD).reshape(split) for layer in (self.q_proj, self.k_proj, self.v_proj))
        # Captions are short: their scores are never too many.
        return self.out_proj(whole_attention(queries, keys, values, causal=True).reshape(B, T, D))


class TextFeedForward(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.activation = config.activation
        self.fc1 = Dense(config.width, config.hidden_width, compute=compute, rngs=rngs)
        self.fc2 = Dense(config.hidden_width, config.width, compute=compute, rngs=rngs)

    def __call__(self, states_BTD: Array) -> Array:
        hidden = self.fc1(states_BTD)
        if self.activation == "gelu":
            return self.fc2(jax.nn.gelu(hidden, approximate=False))
        return self.fc2(hidden * jax.nn.sigmoid(1.702 * hidden))  # https://github.com/hendrycks/GELUs


class TextLayer(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.layer_norm1 = LayerNorm(config.width, epsilon=config.epsilon, compute=compute)
        self.self_attn = TextAttention(config, compute=compute, rngs=rngs)
        self.layer_norm2 = LayerNorm(config.width, epsilon=config.epsilon, compute=compute)
        self.mlp = TextFeedForward(config, compute=compute, rngs=rngs)

    def __call__(self, states_BTD: Array) -> Array:
        states_BTD = states_BTD + self.self_attn(self.layer_norm1(states_BTD))
        return states_BTD + self.mlp(self.layer_norm2(states_BTD))


class TextLayers(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.layers = nnx.List([TextLayer(config, compute=compute, rngs=rngs) for _ in range(config.num_layers)])


class CLIPTextModel(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.config, self.compute = config, compute
        self.embeddings = TextEmbeddings(config, compute=compute, rngs=rngs)
        self.encoder = TextLayers(config, compute=compute, rngs=rngs)
        self.final_layer_norm = LayerNorm(config.width, epsilon=config.epsilon, compute=compute)

    def __call__(self, ids_BT: Array) -> TextStates:
        if ids_BT.shape[1] > self.config.max_tokens:
            raise ValueError(f"{ids_BT.shape[1]} tokens are more than the text encoder's {self.config.max_tokens}")
        states_BTD = self.embeddings(ids_BT)
        layers = [states_BTD]
        for layer in self.encoder.layers:
            states_BTD = run_block(layer, states_BTD, compute=self.compute)
            layers.append(states_BTD)
        last_BTD = self.final_layer_norm(states_BTD)
        ends_B = end_positions(ids_BT, eos_id=self.config.eos_id)
        return TextStates(last_BTD, tuple(layers), pooled_BD=last_BTD[jnp.arange(len(ids_BT)), ends_B])


def end_positions(ids_BT: Array, *, eos_id: int) -> Array:
    """(B,): the first end token; where the configuration is a legacy one, the first of the highest id, which is the same."""
    return jnp.argmax(ids_BT if eos_id == LEGACY_EOS_ID else ids_BT == eos_id, axis=1)


class CLIPTextModelWithProjection(nnx.Module):
    def __init__(self, config: TextConfig, *, compute: Compute, rngs: Rngs) -> None:
        self.config, self.compute = config, compute
        self.text_model = CLIPTextModel(config, compute=compute, rngs=rngs)
        self.text_projection = Dense(config.width, config.projection_width, bias=False, compute=compute, rngs=rngs)

    def __call__(self, ids_BT: Array) -> TextStates:
        states = self.text_model(ids_BT)
        return TextStates(states.last_BTD, states.layers, pooled_BD=self.text_projection(states.pooled_BD))

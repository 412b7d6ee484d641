"""Attention of all models goes through `Compute.attention`: `attend`, or on a TPU the kernel of splash.py.

Axes: B pictures, S queries, T keys, N heads, F features of a head; Q and K are blocks of S and T.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

# Above this many scores of a head they are never all in memory. 32 x 32 latent positions attending to themselves are
# the largest that are: 4 MiB a head. At 64 x 64 it would be 64 MiB, for each head of each picture, several times over.
LARGEST_SCORES = 1024 * 1024
BLOCK = 512

Attend = Callable[[Array, Array, Array], Array]
"""(queries BSNF, keys BTNF, values BTNF) -> BSNF."""


def attend(queries_BSNF: Array, keys_BTNF: Array, values_BTNF: Array) -> Array:
    """softmax(q k / sqrt(F)) v, whichever way suits the lengths; the softmax is in float32."""
    if queries_BSNF.shape[1] * keys_BTNF.shape[1] > LARGEST_SCORES:
        return chunked_attention(queries_BSNF, keys_BTNF, values_BTNF)
    return whole_attention(queries_BSNF, keys_BTNF, values_BTNF)


def precision_of(dtype: jnp.dtype) -> lax.Precision | None:
    """A TPU multiplies float32 in one bf16 pass unless it is told otherwise; float32 means float32 here."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def whole_attention(queries_BSNF: Array, keys_BTNF: Array, values_BTNF: Array, *, causal: bool = False) -> Array:
    """All scores at once; `causal` lets query i see the keys up to i alone."""
    # Of jax.nn's function the precision can be told in no other way.
    with jax.default_matmul_precision("highest" if queries_BSNF.dtype == jnp.float32 else "default"):
        return jax.nn.dot_product_attention(queries_BSNF, keys_BTNF, values_BTNF, is_causal=causal)


def chunked_attention(queries_BSNF: Array, keys_BTNF: Array, values_BTNF: Array, *, block: int = BLOCK) -> Array:
    """The same with never more than block x block scores of a head in memory, forward or backward.

    The softmax's maximum and sum are carried along the blocks of keys (arXiv 2112.05682); the backward pass makes the
    scores anew.
    """
    num_queries, num_keys = queries_BSNF.shape[1], keys_BTNF.shape[1]
    blocks_of_keys = (
        _blocks(keys_BTNF, block=block),
        _blocks(values_BTNF, block=block),
        _blocks(jnp.ones((1, num_keys), bool), block=block)[:, 0],  # padding is False
    )
    attended = lax.map(
        jax.checkpoint(lambda queries_BQNF: _attend_block(queries_BQNF, blocks_of_keys)), _blocks(queries_BSNF, block=block)
    )
    merged_BSNF = jnp.moveaxis(attended, 0, 1).reshape(queries_BSNF.shape[0], -1, *queries_BSNF.shape[2:])
    return merged_BSNF[:, :num_queries]


def _blocks(array: Array, *, block: int) -> Array:
    """(B, S, ...) -> (number of blocks, B, block, ...), with zeros behind the end."""
    length = array.shape[1]
    count = math.ceil(length / block)
    padding = [(0, 0), (0, count * block - length)] + [(0, 0)] * (array.ndim - 2)
    padded = jnp.pad(array, padding).reshape(array.shape[0], count, block, *array.shape[2:])
    return jnp.moveaxis(padded, 1, 0)


def _attend_block(queries_BQNF: Array, blocks_of_keys: tuple[Array, Array, Array]) -> Array:
    """One block of queries against all keys."""
    B, Q, N, F = queries_BQNF.shape
    precision = precision_of(queries_BQNF.dtype)

    @jax.checkpoint
    def step(carry: tuple[Array, Array, Array], keys: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        sums_BNQF, totals_BNQ, tops_BNQ = carry
        keys_BKNF, values_BKNF, real_K = keys
        scores_BNQK = jnp.einsum(
            "BQNF,BKNF->BNQK", queries_BQNF, keys_BKNF, precision=precision, preferred_element_type=jnp.float32
        ) / math.sqrt(F)
        scores_BNQK = jnp.where(real_K, scores_BNQK, -jnp.inf)
        # The result does not depend on the maximum, so no gradient goes through it.
        new_tops_BNQ = lax.stop_gradient(jnp.maximum(tops_BNQ, scores_BNQK.max(-1)))
        weights_BNQK = jnp.exp(scores_BNQK - new_tops_BNQ[..., None])
        fade_BNQ = jnp.exp(tops_BNQ - new_tops_BNQ)
        weighted_BNQF = jnp.einsum(
            "BNQK,BKNF->BNQF",
            weights_BNQK.astype(values_BKNF.dtype),
            values_BKNF,
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        sums_BNQF = sums_BNQF * fade_BNQ[..., None] + weighted_BNQF
        return (sums_BNQF, totals_BNQ * fade_BNQ + weights_BNQK.sum(-1), new_tops_BNQ), None

    start = (jnp.zeros((B, N, Q, F)), jnp.zeros((B, N, Q)), jnp.full((B, N, Q), -jnp.inf))
    (sums_BNQF, totals_BNQ, _), _ = lax.scan(step, start, blocks_of_keys)
    return jnp.moveaxis(sums_BNQF / totals_BNQ[..., None], 1, 2).astype(queries_BQNF.dtype)

"""Attention on a TPU by jax's splash kernel: scores never leave the chip's vector memory, forward or backward.

Axes: B pictures, S queries, T keys, N heads, F features of a head.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh, PartitionSpec

from sdjob.train_flax.models.attention import Attend, attend

LANES = 128  # of a vector register; blocks are multiples of it
# With blocks of 2048 a kernel's own memory is more than the 16 MiB that the compiler gives it on v5e.
LARGEST_BLOCK = 1024
# Below 32 x 32 positions the scores of a head are so few (1 MiB at 16 x 16) that XLA keeps them on the chip by itself.
FEWEST_TOKENS = 1024


def attention_of(mesh: Mesh) -> Attend:
    """What suits the mesh's devices."""
    return SplashAttention(mesh) if mesh.devices.flat[0].platform == "tpu" else attend


@dataclass(frozen=True)
class SplashAttention:
    """The kernel where it applies, `attend` elsewhere: short sequences (a caption's), odd lengths, float32.

    The compiler divides no kernel over devices, so each is told to take its own rows; rows that the devices do not divide
    evenly are computed by every one of them.
    """

    mesh: Mesh
    interpret: bool = False
    """Runs the kernel without a TPU, slowly."""

    def __call__(self, queries_BSNF: Array, keys_BTNF: Array, values_BTNF: Array) -> Array:
        lengths = (queries_BSNF.shape[1], keys_BTNF.shape[1])
        if queries_BSNF.dtype != jnp.bfloat16 or min(lengths) < FEWEST_TOKENS or any(length % LANES for length in lengths):
            return attend(queries_BSNF, keys_BTNF, values_BTNF)
        even = len(queries_BSNF) % self.mesh.size == 0
        rows = PartitionSpec(self.mesh.axis_names if even else None)
        return jax.shard_map(
            lambda *local: splash_attention(*local, interpret=self.interpret),
            mesh=self.mesh,
            in_specs=(rows, rows, rows),
            out_specs=rows,
            check_vma=False,  # the kernel does not say over which axes its results vary
        )(queries_BSNF, keys_BTNF, values_BTNF)


def splash_attention(queries_BSNF: Array, keys_BTNF: Array, values_BTNF: Array, *, interpret: bool = False) -> Array:
    """softmax(q k / sqrt(F)) v of one device's rows; lengths are multiples of 128."""
    num_queries, num_heads, width = queries_BSNF.shape[1:]
    scaled = (queries_BSNF.astype(jnp.float32) / math.sqrt(width)).astype(queries_BSNF.dtype)
    mask = masks.MultiHeadMask([masks.FullMask((num_queries, keys_BTNF.shape[1]))] * num_heads)
    kernel: Callable[..., Any] = kernels.make_splash_mha(
        mask,
        block_sizes=block_sizes(num_queries, keys_BTNF.shape[1]),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    attended_BNSF: Any = jax.vmap(kernel)(*(jnp.moveaxis(array, 2, 1) for array in (scaled, keys_BTNF, values_BTNF)))
    return jnp.moveaxis(attended_BNSF, 1, 2)


def block_sizes(num_queries: int, num_keys: int) -> kernels.BlockSizes:
    """One backward kernel, which makes the scores once, and not two; tokens along the lanes, which 40 or 80 features would
    fill to a third or two."""
    of_queries, of_keys = block_of(num_queries), block_of(num_keys)
    tokens_minor = kernels.QKVLayout.SEQ_MINOR
    return kernels.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        use_fused_bwd_kernel=True,
        q_layout=tokens_minor,
        k_layout=tokens_minor,
        v_layout=tokens_minor,
    )


def block_of(length: int) -> int:
    """The largest multiple of the lanes up to LARGEST_BLOCK that divides the length, which is a multiple of the lanes itself."""
    return max(size for size in range(LANES, LARGEST_BLOCK + 1, LANES) if length % size == 0)

"""The layers that hold parameters. They are kept in their own dtype (float32 masters) and used in the compute dtype.

Norms compute in float32 and return it, as torch does under autocast; the next layer rounds. What stands between the two
fuses into one pass over memory. Axes: B pictures, H x W positions, C channels, I inputs, O outputs, R rank of LoRA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from sdjob.train_flax.models.attention import Attend, attend, precision_of


@dataclass(frozen=True)
class Compute:
    """How a model is computed; what it computes is its configuration's."""

    dtype: DTypeLike = jnp.float32
    """Of activations and products."""

    param_dtype: DTypeLike = jnp.float32
    remat: bool = False
    """Gradient checkpointing: only what stands between the blocks is kept for the backward pass."""

    attention: Attend = attend


class LoraParam(nnx.Variable):
    """A matrix of LoRA: the type by which trainable parameters are told from frozen ones."""


class DropoutKey(nnx.Variable):
    """The key of a LoRA layer's dropout in one step."""


Rngs = nnx.Rngs | None
"""None makes a model of shapes alone, for weights that are read: nnx.eval_shape of one takes half a minute for SDXL."""


def initial_uniform(rngs: Rngs, shape: Sequence[int], *, fan_in: int, compute: Compute) -> nnx.Param[Array]:
    """torch's default for layers."""
    if rngs is None:
        shape_alone: Any = jax.ShapeDtypeStruct(shape, compute.param_dtype)
        return nnx.Param(shape_alone)
    bound = fan_in**-0.5
    return nnx.Param(jax.random.uniform(rngs.params(), shape, compute.param_dtype, -bound, bound))


class Adaptable(nnx.Module):
    """A linear map that LoRA may be attached to."""

    kernel: nnx.Param[Array]
    bias: nnx.Param[Array] | None

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.lora_A: LoraParam | None = nnx.data(None)
        self.lora_B: LoraParam | None = nnx.data(None)
        self.lora_scale = 1.0
        self.lora_dropout = 0.0
        self.dropout_key: DropoutKey | None = nnx.data(None)

    def attach_lora(self, *, A: Array, B: Array, scale: float, dropout: float) -> None:
        """A and B in this layer's own layout; `scale` is alpha / rank."""
        self.lora_A, self.lora_B = LoraParam(A), LoraParam(B)
        self.lora_scale, self.lora_dropout = scale, dropout

    def __call__(self, inputs: Array) -> Array:
        inputs = inputs.astype(self.compute.dtype)
        outputs = self.product(inputs, self.kernel[...])
        if self.bias is not None:
            outputs = outputs + self.bias[...].astype(self.compute.dtype)
        if self.lora_A is not None and self.lora_B is not None:
            low = self.product(self._dropped(inputs), self.lora_A[...])
            outputs = outputs + self.widened(low, self.lora_B[...]) * self.lora_scale
        return outputs

    def _dropped(self, inputs: Array) -> Array:
        if self.dropout_key is None or not self.lora_dropout:
            return inputs
        kept = jax.random.bernoulli(self.dropout_key[...], 1.0 - self.lora_dropout, inputs.shape)
        return jnp.where(kept, inputs / (1.0 - self.lora_dropout), 0.0).astype(inputs.dtype)

    def product(self, inputs: Array, kernel: Array) -> Array:
        raise NotImplementedError

    def widened(self, low: Array, lora_B: Array) -> Array:
        raise NotImplementedError


class Dense(Adaptable):
    """Kernel (I, O)."""

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True, compute: Compute, rngs: Rngs) -> None:
        super().__init__(compute)
        self.kernel = initial_uniform(rngs, (num_inputs, num_outputs), fan_in=num_inputs, compute=compute)
        self.bias = initial_uniform(rngs, (num_outputs,), fan_in=num_inputs, compute=compute) if bias else None

    def product(self, inputs: Array, kernel: Array) -> Array:
        return jnp.dot(inputs, kernel.astype(self.compute.dtype), precision=precision_of(inputs.dtype))

    def widened(self, low: Array, lora_B: Array) -> Array:
        return self.product(low, lora_B)


class Conv(Adaptable):
    """Kernel (H, W, I, O); `padding` is ((top, bottom), (left, right)), or one number for all four sides."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        size: int = 3,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] | None = None,
        compute: Compute,
        rngs: Rngs,
    ) -> None:
        super().__init__(compute)
        padding = size // 2 if padding is None else padding
        self.padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
        self.stride = stride
        fan_in = num_inputs * size * size
        self.kernel = initial_uniform(rngs, (size, size, num_inputs, num_outputs), fan_in=fan_in, compute=compute)
        self.bias = initial_uniform(rngs, (num_outputs,), fan_in=fan_in, compute=compute)

    def product(self, inputs: Array, kernel: Array) -> Array:
        return convolve(inputs, kernel.astype(self.compute.dtype), stride=self.stride, padding=self.padding)

    def widened(self, low: Array, lora_B: Array) -> Array:
        """B is a convolution of 1 x 1 whatever A's size, as peft has it."""
        return convolve(low, lora_B.astype(self.compute.dtype), stride=1, padding=((0, 0), (0, 0)))


def convolve(images_BHWI: Array, kernel_HWIO: Array, *, stride: int, padding: tuple[tuple[int, int], ...]) -> Array:
    return lax.conv_general_dilated(
        images_BHWI,
        kernel_HWIO,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(images_BHWI.dtype),
    )


class Embedding(nnx.Module):
    """Table (number of ids, C)."""

    def __init__(self, num_ids: int, width: int, *, compute: Compute, rngs: Rngs) -> None:
        self.compute = compute
        self.embedding = initial_uniform(rngs, (num_ids, width), fan_in=width, compute=compute)

    def __call__(self, ids: Array) -> Array:
        return self.embedding[...].astype(self.compute.dtype)[ids]


class Norm(nnx.Module):
    """Scale and shift of C channels; what they are normalized over is the sub-class's."""

    def __init__(self, num_channels: int, *, epsilon: float, compute: Compute) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(np.ones((num_channels,), compute.param_dtype))
        self.bias = nnx.Param(np.zeros((num_channels,), compute.param_dtype))

    def affine(self, normalized: Array) -> Array:
        return normalized * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)


class LayerNorm(Norm):
    def __call__(self, inputs: Array) -> Array:
        return self.affine(standardized(inputs.astype(jnp.float32), axes=(-1,), epsilon=self.epsilon))


class GroupNorm(Norm):
    def __init__(self, num_channels: int, *, num_groups: int, epsilon: float, compute: Compute) -> None:
        super().__init__(num_channels, epsilon=epsilon, compute=compute)
        self.num_groups = num_groups

    def __call__(self, images_BHWC: Array) -> Array:
        B, H, W, C = images_BHWC.shape
        grouped = images_BHWC.astype(jnp.float32).reshape(B, H, W, self.num_groups, C // self.num_groups)
        return self.affine(standardized(grouped, axes=(1, 2, 4), epsilon=self.epsilon).reshape(images_BHWC.shape))


def standardized(values: Array, *, axes: tuple[int, ...], epsilon: float) -> Array:
    # Two passes: E[x^2] - E[x]^2 cancels where a group's mean is far from zero.
    centred = values - values.mean(axes, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)

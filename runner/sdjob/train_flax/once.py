"""What the frozen encoders compute once, before the training: as long as they do nothing else is on the devices.

Axes: B pictures or captions, H x W positions, C channels, T tokens, D features.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

from sdjob.encodings.reader import Encodings, without_axis
from sdjob.encodings.shard import Dtype, Rows
from sdjob.encodings.work import Pass
from sdjob.link import Link
from sdjob.spec.task import TrainTask
from sdjob.train_flax.conditioning import TextEncoders, TextTraits, Tokenizers, encoded_captions
from sdjob.train_flax.encode import encode_pictures, wide_enough
from sdjob.train_flax.mesh import AXES, Layout
from sdjob.train_flax.models.folder import read_vae
from sdjob.train_flax.models.layers import Compute
from sdjob.train_flax.models.splash import attention_of
from sdjob.train_flax.setup import compute_dtype, read_frozen_encoders

DTYPES: dict[Any, Dtype] = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}


def encodings_of(task: TrainTask, *, link: Link) -> Encodings | None:
    """All of the job's encodings, once every process has computed its share; None where the encoders run at every step.

    Each process computes on its own devices: nobody waits in a collective meanwhile.
    """
    work = Pass.of(task)
    if work is None:
        return None
    if work.missing(0):
        link.send("encoding")
        work.compute(FlaxEncoder.of(task), rank=0, on_shard=lambda file: link.send("shard", **vars(file)))
        gc.collect()  # models hold themselves in circles
    return work.wait()


@dataclass(frozen=True)
class FlaxEncoder:
    """Every device takes a batch. Each model is read when it is first needed: perhaps another host has all of the captions."""

    task: TrainTask
    layout: Layout

    @classmethod
    def of(cls, task: TrainTask) -> "FlaxEncoder":
        return cls(task, Layout.of_all_devices().of_this_host())

    @cached_property
    def vae(self) -> tuple[Any, Any]:
        """Graph and arrays."""
        compute = wide_enough(self.compute, self.task.model)
        options: dict[str, Any] = {"variant": self.task.job.model.variant, "put": self.layout.put_whole}
        return nnx.split(read_vae(self.task.model / "vae", compute=compute, **options))

    @cached_property
    def text(self) -> TextEncoders:
        return read_frozen_encoders(self.task, compute=self.compute, put=self.layout.put_whole)

    @cached_property
    def text_split(self) -> list[tuple[Any, Any]]:
        return [nnx.split(model) for model in self.text.parts.values()]

    @cached_property
    def tokenizers(self) -> Tokenizers:
        return Tokenizers.of(self.task.model)

    @property
    def compute(self) -> Compute:
        dtype = compute_dtype(self.task.job.train)
        return Compute(dtype=dtype, param_dtype=dtype, attention=attention_of(self.layout.mesh))

    @property
    def devices(self) -> int:
        return self.layout.mesh.size

    def pictures(self, pixels_BCHW: NDArray[np.float32]) -> dict[str, Rows]:
        pixels_BHWC = self._spread(np.ascontiguousarray(pixels_BCHW.transpose(0, 2, 3, 1)))
        graph, arrays = self.vae
        dtype = wide_enough(self.compute, self.task.model).dtype
        mean_BHWC, log_variance_BHWC = moments(arrays, pixels_BHWC, graph=graph, dtype=dtype)
        return {"mean_CHW": picture_rows(mean_BHWC), "log_variance_CHW": picture_rows(log_variance_BHWC)}

    def captions(self, captions: Sequence[str]) -> dict[str, Rows]:
        told = {name: self._spread(values_B) for name, values_B in self.tokenizers.arrays(captions).items()}
        graphs, arrays = tuple(graph for graph, _ in self.text_split), tuple(arrays for _, arrays in self.text_split)
        encoded = states(arrays, told, graphs=graphs, traits=self.text.traits, dtype=self.compute.dtype)
        return {without_axis(name, "B"): rows(np.asarray(values)) for name, values in encoded.items()}

    def _spread(self, values_B: NDArray[Any]) -> Array:
        return jax.device_put(values_B, NamedSharding(self.layout.mesh, PartitionSpec(AXES)))


@partial(jax.jit, static_argnames=("graph", "dtype"))
def moments(arrays: Any, pixels_BHWC: Array, *, graph: Any, dtype: Any) -> tuple[Array, Array]:
    posterior = encode_pictures(nnx.merge(graph, arrays), pixels_BHWC)
    # The VAE computed them in this type, and only widened them: nothing is lost.
    return posterior.mean_BHWC.astype(dtype), posterior.log_variance_BHWC.astype(dtype)


@partial(jax.jit, static_argnames=("graphs", "traits", "dtype"))
def states(
    arrays: tuple[Any, ...], told: dict[str, Array], *, graphs: tuple[Any, ...], traits: TextTraits, dtype: Any
) -> dict[str, Array]:
    models = [nnx.merge(graph, own) for graph, own in zip(graphs, arrays, strict=True)]
    return jax.tree.map(lambda values: values.astype(dtype), encoded_captions(models, told, traits=traits))


def picture_rows(values_BHWC: Array) -> Rows:
    """In torch's layout, which all backends keep."""
    return rows(np.asarray(values_BHWC).transpose(0, 3, 1, 2))


def rows(values_B: NDArray[Any]) -> Rows:
    dtype = DTYPES[values_B.dtype]
    return Rows(dtype, np.ascontiguousarray(values_B).view(np.uint16) if dtype == "BF16" else values_B)

"""Models out of and into a folder of diffusers or transformers: config.json beside safetensors, whole or in shards.

A model is made as shapes alone and filled tensor by tensor, so that it is never in memory twice.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from sdjob.core.errors import MissingError, UsageError
from sdjob.diffusion.tensor_file import Span, StoredTensor, read_tensors, write_tensors
from sdjob.train_flax.models import names
from sdjob.train_flax.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from sdjob.train_flax.models.config import CONFIG, TextConfig, UNetConfig, VaeConfig
from sdjob.train_flax.models.layers import Compute
from sdjob.train_flax.models.unet import UNet2DConditionModel
from sdjob.train_flax.models.vae import AutoencoderKL

DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS = "diffusion_pytorch_model", "model"
SHOWN_NAMES = 5  # of missing, surplus and misshapen tensors each

Model = TypeVar("Model", bound=nnx.Module)
Put = Callable[[str, NDArray[Any]], Array]
"""(name, values in our layout) -> the array on its devices: where a mesh lays its parts."""


class Config(Protocol):
    @classmethod
    def read(cls, path: Path) -> Any: ...


def put_on_default(name: str, values: NDArray[Any]) -> Array:  # noqa: ARG001 - Put's form
    return jnp.array(values)


def shape_alone(name: str, values: NDArray[Any]) -> Any:  # noqa: ARG001 - Put's form
    return jax.ShapeDtypeStruct(values.shape, values.dtype)


def read_unet(folder: Path, **options: Any) -> UNet2DConditionModel:
    return read_model(UNet2DConditionModel, UNetConfig, folder, stem=DIFFUSERS_WEIGHTS, **options)


def read_vae(folder: Path, **options: Any) -> AutoencoderKL:
    return read_model(AutoencoderKL, VaeConfig, folder, stem=DIFFUSERS_WEIGHTS, **options)


def read_text_encoder(folder: Path, **options: Any) -> CLIPTextModel:
    return read_model(CLIPTextModel, TextConfig, folder, stem=TRANSFORMERS_WEIGHTS, **options)


def read_text_encoder_with_projection(folder: Path, **options: Any) -> CLIPTextModelWithProjection:
    return read_model(CLIPTextModelWithProjection, TextConfig, folder, stem=TRANSFORMERS_WEIGHTS, **options)


def read_model(
    kind: Callable[..., Model],
    config: type[Config],
    folder: Path,
    *,
    stem: str,
    variant: str | None = None,
    compute: Compute = Compute(),  # noqa: B008 - frozen
    put: Put | None = put_on_default,
) -> Model:
    """The model with the folder's weights in `compute.param_dtype`; `variant` is a file's, such as fp16.

    Without a `put` it stays one of shapes alone: weights are neither read nor looked for.
    """
    read = config.read(folder / CONFIG)
    model = kind(read, compute=compute, rngs=None)
    if put is not None:
        fill(model, stored_tensors(folder, stem=stem, variant=variant), where=str(folder), put=put)
    return model


# ---- reading -------------------------------------------------------------------------------------------------------------


def stored_tensors(folder: Path, *, stem: str, variant: str | None) -> dict[str, StoredTensor]:
    """Every tensor of a folder's safetensors by its name there; none of them is read yet."""
    middle = f".{variant}" if variant else ""
    whole, index = folder / f"{stem}{middle}.safetensors", folder / f"{stem}.safetensors.index{middle}.json"
    if whole.is_file():
        return read_tensors(whole)
    if not index.is_file():
        raise MissingError(
            f"the model folder has neither {whole.name} nor {index.name}.",
            where=str(folder),
            next_step="Other formats than safetensors are not read; model.variant chooses among several files.",
        )
    shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    read = {shard: read_tensors(folder / shard) for shard in sorted(set(shards.values()))}
    absent = sorted(name for name, shard in shards.items() if name not in read[shard])
    if absent:
        raise UsageError(f"{index.name} names tensors that its files do not hold: {shown(absent)}", where=str(folder))
    return {name: read[shard][name] for name, shard in shards.items()}


def fill(model: nnx.Module, stored: Mapping[str, StoredTensor], *, where: str, put: Put = put_on_default) -> None:
    """Gives every parameter of the model its tensor; missing, surplus or misshapen ones are an error that names them."""
    own = names.parameters_of(model)
    given = {present: stored[name] for name, present in names.present_names(stored, own=own)}
    check_names(own, given, where=where)
    state = nnx.state(model, nnx.Param)
    for name, (path, variable) in own.items():
        values = from_file(given[name], dtype=variable.get_value().dtype)
        variable.set_value(put(name, names.from_torch(path, values)))
    nnx.update(model, state)


def from_file(tensor: StoredTensor, *, dtype: Any) -> NDArray[Any]:
    kind, where = DTYPES.get(tensor.dtype), tensor.content.path if isinstance(tensor.content, Span) else None
    if kind is None:
        raise UsageError(f"a tensor is of type {tensor.dtype}; {', '.join(DTYPES)} are supported", where=str(where))
    if not isinstance(tensor.content, Span):
        return np.frombuffer(b"".join(tensor.pieces()), dtype=kind).reshape(tensor.shape).astype(dtype)
    values = np.memmap(tensor.content.path, dtype=kind, mode="r", offset=tensor.content.offset, shape=tensor.shape or (1,))
    return np.array(values.reshape(tensor.shape), dtype=dtype)


def check_names(
    own: Mapping[str, tuple[names.Path, nnx.Variable[Any]]], given: Mapping[str, StoredTensor], *, where: str
) -> None:
    expected = {name: names.torch_shape(path, variable.get_value().shape) for name, (path, variable) in own.items()}
    faults = {
        "missing": sorted(expected.keys() - given.keys()),
        "surplus": sorted(given.keys() - expected.keys()),
        "misshapen": [
            f"{name} {given[name].shape} instead of {shape}"
            for name, shape in expected.items()
            if name in given and given[name].shape != shape
        ],
    }
    if any(faults.values()):
        lines = "".join(f"  {len(found)} {kind}: {shown(found)}\n" for kind, found in faults.items() if found)
        raise UsageError("the weights are not those of the model that config.json describes:\n" + lines, where=where)


def shown(found: list[str]) -> str:
    more = f", and {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
    return ", ".join(found[:SHOWN_NAMES]) + more


# ---- writing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceTensor(StoredTensor):
    """A tensor that is fetched from its devices when its bytes are asked for."""

    fetch: Callable[[], NDArray[Any]]

    def pieces(self) -> Iterator[bytes]:
        yield self.fetch().tobytes()


def device_tensors(model: nnx.Module, kind: Any = nnx.Param) -> dict[str, StoredTensor]:
    """The model's parameters under torch's names and in its layouts, as float32."""
    return {
        name: device_tensor(path, variable.get_value()) for name, (path, variable) in names.parameters_of(model, kind).items()
    }


def device_tensor(path: names.Path, array: Array) -> DeviceTensor:
    def fetch() -> NDArray[Any]:
        return names.to_torch(path, np.asarray(jax.device_get(array), dtype=np.float32))

    return DeviceTensor("F32", names.torch_shape(path, array.shape), 4 * array.size, content=b"", fetch=fetch)


def write_model(model: nnx.Module, *, config: Path, folder: Path) -> None:
    """A folder that diffusers or transformers loads; `config` is the config.json that the model was read with."""
    folder.mkdir(parents=True, exist_ok=True)
    text = isinstance(model, CLIPTextModel | CLIPTextModelWithProjection)
    tensors = device_tensors(model)
    if isinstance(model, CLIPTextModel):
        # transformers of every version reads this spelling, and other programs know no other.
        tensors = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
    stem = TRANSFORMERS_WEIGHTS if text else DIFFUSERS_WEIGHTS
    write_tensors(folder / f"{stem}.safetensors", tensors=tensors, metadata={"format": "pt"})
    shutil.copyfile(config, folder / CONFIG)

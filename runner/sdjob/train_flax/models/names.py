"""Paths in an nnx model against the names and layouts of torch: the one place that knows both.

The modules' attributes are diffusers' own names, so that a path differs from a name in its last part alone.
Axes: I inputs, O outputs, H x W of a convolution's kernel, R rank of LoRA.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx
from numpy.typing import NDArray

Path = tuple[str | int, ...]

# The last part of a path -> the end of the name.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
}
# Parts that are linear maps, by the number of their axes: which axis of ours is each of torch's.
# (I, O) -> (O, I), and (H, W, I, O) -> (O, I, H, W); for LoRA's A and B the rank is O and I.
KERNELS = ("kernel", "lora_A", "lora_B")
TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}

# What AutoencoderKL's attention was called until diffusers 0.17, and in Stable Diffusion 1.x's own folders still is:
# https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/modeling_utils.py
DEPRECATED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
# Buffers that older versions of transformers saved: no parameters, and the same in every model.
BUFFERS = (".position_ids",)


def torch_name(path: Path) -> str:
    *modules, leaf = path
    return ".".join([*map(str, modules), LEAVES[str(leaf)]])


def parameters_of(model: nnx.Module, kind: Any = nnx.Param) -> dict[str, tuple[Path, nnx.Variable[Any]]]:
    """(path, variable) of every parameter by its torch name, sorted; two of one name would be a fault of the model."""
    flat: Any = nnx.to_flat_state(nnx.state(model, kind))
    found: dict[str, tuple[Path, nnx.Variable[Any]]] = {torch_name(path): (path, variable) for path, variable in flat}
    if len(found) != len(flat):
        raise ValueError("two parameters of the model have one name")
    return dict(sorted(found.items()))


def torch_axes(path: Path, num_axes: int) -> tuple[int, ...]:
    """For np.transpose: our layout to torch's."""
    return TO_TORCH[num_axes] if path[-1] in KERNELS else tuple(range(num_axes))


def our_axes(path: Path, num_axes: int) -> tuple[int, ...]:
    """For np.transpose: torch's layout to ours."""
    return FROM_TORCH[num_axes] if path[-1] in KERNELS else tuple(range(num_axes))


def torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in torch_axes(path, len(shape)))


def to_torch(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(torch_axes(path, array.ndim)))


def from_torch(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(our_axes(path, array.ndim)))


def present_names(names: Mapping[str, Any], *, own: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(the name in the file, the model's own name for it), without buffers.

    CLIPTextModel's parameters stand below `text_model.` in every folder but those that transformers 5 wrote.
    """
    below = not any(name.startswith("text_model.") for name in own)
    for name in names:
        if name.endswith(BUFFERS):
            continue
        present = name.removeprefix("text_model.") if below else name
        for old, new in DEPRECATED.items():
            if present not in own and old in present:
                present = present.replace(old, new)
        yield name, present

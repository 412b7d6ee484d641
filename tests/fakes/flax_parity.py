"""What the comparisons of the flax models with torch's share: layouts, compilation, distances."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from numpy.typing import NDArray

from fakes.tiny_models import write_tiny_model
from fakes.tiny_sdxl import write_tiny_sdxl

# Compiling takes far longer here than running: LLVM without its optimizations halves it. Read when jax starts its backend.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
jax.config.update("jax_platforms", "cpu")


def write_family(folder: Path, family: str) -> Path:
    if family == "sdxl":
        write_tiny_sdxl(folder / family)
    else:
        write_tiny_model(folder / family, family=family)
    return folder / family


def channels_last(images_BCHW: torch.Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(images_BCHW.numpy().transpose(0, 2, 3, 1))


def channels_first(images_BHWC: Any) -> NDArray[np.float32]:
    return np.asarray(images_BHWC, dtype=np.float32).transpose(0, 3, 1, 2)


def distance(ours: Any, theirs: torch.Tensor) -> float:
    """max |d| of max |y|."""
    y = theirs.detach().float().numpy()
    assert np.shape(ours) == y.shape
    return float(np.abs(np.asarray(ours, dtype=np.float32) - y).max() / np.abs(y).max())


def assert_gradients_agree(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, torch.Tensor]) -> None:
    """|d| <= 1e-4 |g| + 1e-6 of the global norm, per tensor; some true gradients are zero (a key's bias under softmax)."""
    assert ours.keys() == theirs.keys()
    whole = np.sqrt(sum(float(g.double().square().sum()) for g in theirs.values()))
    assert whole > 0
    for name, gradient in theirs.items():
        expected = gradient.double().numpy()
        assert ours[name].shape == expected.shape, name
        off = np.linalg.norm(ours[name] - expected)
        assert off <= 1e-4 * np.linalg.norm(expected) + 1e-6 * whole, name

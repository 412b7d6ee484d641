"""Checkpoint folders with weights that tests make up, and the jobs that they belong to."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sdjob.spec.job import JobSpec
from sdjob.spec.load import parse_job

Arrays = dict[str, NDArray[np.float32]]

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def make_job(method: str = "lora", **parts: dict[str, Any]) -> JobSpec:
    """A valid job; `train=dict(...)` and so on add fields to its parts or change them."""
    job: dict[str, Any] = {
        "apiVersion": "sdjob/v1",
        "name": "tiny",
        "model": {"source": "/models/base"},
        "data": {"source": "/pictures", "resolution": 64},
        "train": {"method": method, "steps": 10, "global_batch": 2, "device_batch": 1},
    }
    for part, fields in parts.items():
        job[part] = {**job.get(part, {}), **fields}
    return parse_job(job)


def lora_arrays(modules: dict[str, tuple[int, int]], *, rank: int = 4, seed: int = 0) -> Arrays:
    """Random matrices for each module of (outputs, inputs), under a checkpoint's names."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, (outputs, inputs) in modules.items():
        arrays[f"unet.{name}.lora_A.weight"] = rng.standard_normal((rank, inputs)).astype(np.float32)
        arrays[f"unet.{name}.lora_B.weight"] = rng.standard_normal((outputs, rank)).astype(np.float32)
    return arrays


def small_lora(*, rank: int = 4, seed: int = 0) -> Arrays:
    return lora_arrays({f"{ATTENTION}.to_q": (16, 16), f"{ATTENTION}.to_out.0": (16, 16)}, rank=rank, seed=seed)


def write_checkpoint(folder: Path, *, weights: Arrays, ema: Arrays | None = None) -> Path:
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")
    if ema is not None:
        save_file({f"ema.{name}": array for name, array in ema.items()}, folder / "ema.safetensors")
    return folder

"""The same job on both backends: what it asks for, where its children compile, and how far apart two runs ended."""

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fakes.running import Job, Workshop
from sdjob.ckpt.slot import slot_number
from sdjob.diffusion.draws import initial_lora_A
from sdjob.diffusion.parts import Kind, has_tensors, stored_tensors
from sdjob.diffusion.tensor_file import StoredTensor

Method = Literal["lora", "full"]
Backend = Literal["torch", "flax"]
Tensors = dict[str, NDArray[np.float32]]

METHODS: tuple[Method, ...] = ("lora", "full")
FAMILY = {"lora": "sd1", "full": "sd2"}  # sd2 predicts the velocity
STEPS, SAVE_EVERY = 12, 3
# Of a loss; and of the update, over all tensors together. 3e-7 and 5e-6 are what is seen; 1e-3 would still be sound.
ROUNDING = 1e-4
# Adam's first steps are nearly the sign of the gradient, which makes rounding of 1e-4 differences of 1e-2 of the update: a
# warm-up and a larger epsilon keep the comparison one of the backends.
SAME: dict[str, Any] = {
    "data__flip": True,
    "data__crop": "random",
    "data__caption_dropout": 0.2,
    "train__steps": STEPS,
    "train__global_batch": 8,
    "train__device_batch": 4,
    "train__schedule": {"name": "constant_with_warmup", "warmup_steps": 4},
    "checkpoint__every_steps": SAVE_EVERY,
    "validation": None,
}
OWN: dict[Method, dict[str, Any]] = {
    "lora": {"train__lora": {"rank": 3, "alpha": 6}, "train__optimizer": {"learning_rate": 1e-2, "epsilon": 1e-6}},
    "full": {
        "train__method": "full",
        "train__optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6},
        "train__ema": {"decay": 0.6},
        "train__loss": {"snr_gamma": 5.0, "noise_offset": 0.1},
    },
}


def fields_of(method: Method, *, backend: Backend) -> dict[str, Any]:
    """For Workshop.job: one job, but for its backend."""
    return {"family": FAMILY[method], **SAME, **OWN[method], "train__backend": backend}


def straight(workshop: Workshop, method: Method, *, backend: Backend) -> Job:
    """Everybody's uninterrupted run."""
    return workshop.finished(f"{method} on {backend}", environment=compiled_once(workshop), **fields_of(method, backend=backend))


def compiled_once(workshop: Workshop) -> dict[str, str]:
    """For children on flax: a program takes many times longer to compile than to run here."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(workshop.folder / "compiled"),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def handed_over(to: Job, *, of: Job, at_most: int) -> int:
    """Puts a finished run's place before `to` as a kill right after a commit would have left it: the log ends there, and later
    blobs are orphans. Returns the commit's step: the last that there is up to `at_most`, as a save may have been skipped."""
    shutil.copytree(of.to, to.to)
    commit = max((commit for commit in of.history().live if commit.step <= at_most), key=lambda commit: commit.step)
    for path in (to.to / "log").iterdir():
        number = slot_number(f"log/{path.name}")
        assert number is not None
        if number > commit.slot:
            path.unlink()
    shutil.rmtree(to.to / "hint")
    return commit.step


# ---- distances -------------------------------------------------------------------------------------------------------------


def trained(job: Job, *, folder: Path, step: int = STEPS) -> Tensors:
    """Weights and averages of a commit, by their names in it."""
    folder.mkdir()
    job.log.fetch(folder, step=step)
    kinds: list[Kind] = ["weights", "ema"] if has_tensors(folder, "ema") else ["weights"]
    return {name: array_of(tensor) for kind in kinds for name, tensor in stored_tensors(folder, kind).items()}


def array_of(tensor: StoredTensor) -> NDArray[np.float32]:
    assert tensor.dtype == "F32"
    return np.frombuffer(b"".join(tensor.pieces()), np.float32).reshape(tensor.shape)


def untrained(workshop: Workshop, method: Method, *, like: Tensors) -> Tensors:
    """What these tensors were before the first step."""
    if method == "lora":
        return {name: lora_start(name, shape=values.shape) for name, values in like.items()}
    base = load_file(workshop.model(FAMILY[method]) / "unet" / "diffusion_pytorch_model.safetensors")
    return {name: base[name.removeprefix("ema.").removeprefix("unet.")] for name in like}


def lora_start(name: str, *, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return initial_lora_A(name, shape=shape, seed=0) if "lora_A" in name else np.zeros(shape, np.float32)


def apart(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, start: Mapping[str, Any]) -> float:
    """|ours - theirs| of |theirs - start|, over all tensors together."""
    assert ours.keys() == theirs.keys() == start.keys()
    update = norm(theirs[name] - start[name] for name in theirs)
    assert update > 0
    return norm(ours[name] - theirs[name] for name in theirs) / update


def norm(tensors: Iterable[NDArray[Any]]) -> float:
    return math.sqrt(sum(float(np.square(values.astype(np.float64)).sum()) for values in tensors))

"""The state of a run: which tensors it has, under which names, in and out of safetensors files.

A checkpoint's folder holds weights.safetensors (float32 masters), optimizer.safetensors (`optimizer.m.NAME`,
`optimizer.v.NAME`, or what else optimizer.py names), ema.safetensors (`ema.NAME`) where EMA is on, and state.json (scalars).
There is no generator state, because none exists. Where the state is spread over ranks (sharding.py), each writes files of its
own rows (diffusion/parts.py), and rank 0 the scalars; it is read by any number of ranks, spread or not.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdjob.core.errors import UnsoundError
from sdjob.diffusion.parts import Kind, stored_tensors, whole_file
from sdjob.diffusion.tensor_file import StoredTensor
from sdjob.train_torch import optimizer as optimizers
from sdjob.train_torch.arena import Arena
from sdjob.train_torch.sharding import Shards


@dataclass
class TrainState:
    """Live objects; `parameters` are the trainable ones by their names in a checkpoint, in a fixed order: this rank's rows of
    them where they are spread."""

    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    scaler: "torch.amp.grad_scaler.GradScaler | None"
    arena: Arena = field(default_factory=Arena)
    shards: Shards | None = None

    def file(self, kind: Kind) -> str:
        return whole_file(kind) if self.shards is None else self.shards.file(kind)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The live ones, by file and by their names there. Moments appear with a parameter's first gradient."""
        files: dict[str, dict[str, Tensor]] = {self.file("weights"): dict(self.parameters)}
        files[self.file("optimizer")] = {
            f"optimizer.{short}.{name}": tensor
            for name, parameter in self.parameters.items()
            for short, tensor in optimizers.slots_of(self.optimizer, parameter).items()
        }
        if self.ema is not None:
            shadow = zip(self.parameters, self.ema.shadow_params, strict=True)
            files[self.file("ema")] = {f"ema.{name}": tensor for name, tensor in shadow}
        return files

    def reserve(self) -> None:
        """Memory for snapshots, once the moments are there."""
        self.arena.reserve({name: tensor for tensors in self.tensors().values() for name, tensor in tensors.items()})


@dataclass(frozen=True)
class HostSnapshot:
    """Copies on the host: the training may go on while another thread writes them. After the last step there may be none."""

    files: dict[str, dict[str, Tensor]]
    scalars: dict[str, Any] | None
    """Written by rank 0 alone."""

    def write_into(self, folder: Path) -> None:
        for name, tensors in self.files.items():
            save_file(tensors, folder / name)
        if self.scalars is not None:
            (folder / "state.json").write_text(json.dumps(self.scalars, sort_keys=True), encoding="utf-8")


def snapshot(state: TrainState, *, scalars: Mapping[str, Any], last: bool = False) -> HostSnapshot:
    """Into the memory of the snapshot before, which must have been written by now: at most one save is in flight."""
    take = partial(state.arena.take, last=last and state.shards is None)
    on_cuda = any(parameter.is_cuda for parameter in state.parameters.values())
    if on_cuda and state.ema is not None:
        torch.cuda.synchronize()  # averages that are kept on the host may still be on their way there
    files = {file: {name: take(name, tensor) for name, tensor in tensors.items()} for file, tensors in state.tensors().items()}
    if on_cuda:
        torch.cuda.synchronize()  # copies into pinned memory do not block
    is_main = state.shards is None or state.shards.rank == 0
    return HostSnapshot(files=files, scalars={**scalars, **_own_scalars(state)} if is_main else None)


def _own_scalars(state: TrainState) -> dict[str, Any]:
    own = optimizers.scalars_of(state.optimizer)
    return {
        **({"optimizer_scalars": own} if own else {}),
        "optimizer_count": optimizers.count_of(state.optimizer),
        "ema_count": state.ema.optimization_step if state.ema else None,
        "loss_scale": state.scaler.state_dict() if state.scaler else None,
    }


def restore(state: TrainState, folder: Path) -> None:
    """Fills the live objects with a checkpoint's values."""
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    weights = _load(state, folder, "weights")
    _check_names(state.parameters.keys(), weights.keys(), file="weights.safetensors")
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(weights[name])
    _restore_optimizer(state, _load(state, folder, "optimizer"), count=scalars["optimizer_count"])
    optimizers.fill_scalars(state.optimizer, scalars.get("optimizer_scalars", {}))
    if state.ema is not None:
        averages = _load(state, folder, "ema")
        for name, shadow in zip(state.parameters, state.ema.shadow_params, strict=True):
            shadow.copy_(averages[f"ema.{name}"])
        state.ema.optimization_step = scalars["ema_count"]
    if state.scaler is not None and scalars["loss_scale"]:
        state.scaler.load_state_dict(scalars["loss_scale"])


def _load(state: TrainState, folder: Path, kind: Kind) -> dict[str, Tensor]:
    """By their names in the files; of spread ones this rank's rows alone are read."""
    whole = folder / whole_file(kind)
    if state.shards is None and whole.is_file():
        return load_file(whole)
    stored = stored_tensors(folder, kind)
    if state.shards is not None:
        stored = {key: state.shards.rows_in(tensor, name=_parameter_of(key, kind=kind)) for key, tensor in stored.items()}
    return {key: _tensor(tensor) for key, tensor in stored.items()}


def _parameter_of(key: str, *, kind: Kind) -> str:
    """The name of the parameter that a moment or an average is of."""
    return key.split(".", {"weights": 0, "optimizer": 2, "ema": 1}[kind])[-1]


def _tensor(stored: StoredTensor) -> Tensor:
    if stored.dtype != "F32":
        raise UnsoundError(f"a checkpoint in parts holds float32, and not {stored.dtype}")
    values = torch.empty(stored.shape)
    if math.prod(stored.shape):
        values = torch.frombuffer(bytearray().join(stored.pieces()), dtype=torch.float32).view(stored.shape)
    return values


def _restore_optimizer(state: TrainState, moments: Mapping[str, Tensor], *, count: float) -> None:
    kept: dict[str, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        _, short, name = key.split(".", 2)
        kept.setdefault(name, {})[short] = tensor
    for name, slots in kept.items():  # a parameter that never had a gradient has none
        optimizers.fill(state.optimizer, state.parameters[name], slots, count=count)


def _check_names(own: Any, given: Any, *, file: str) -> None:
    if set(own) != set(given):
        example = sorted(set(own) ^ set(given))[0]
        raise UnsoundError(f"the checkpoint's {file} does not hold the job's parameters (such as {example})")

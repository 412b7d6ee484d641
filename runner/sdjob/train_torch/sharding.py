"""`train.fsdp`: each process holds its rows of every weight, gradient, moment and average; torch's FSDP2 brings a layer's rows
together while it is computed (https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html).

Optimizer, averages and snapshots get a process's rows as plain parameters that share the memory of FSDP's own, so that none of
them knows that there are others. Gradients are means over the ranks after each micro-batch, and not after the last alone: until
then they would be whole on every device, for the sake of less communication.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sdjob.diffusion.parts import Kind, part_file
from sdjob.diffusion.tensor_file import StoredTensor

# What is brought together at a time; what is left belongs to the whole model.
LAYERS = (BasicTransformerBlock, Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D)


def spread(model: torch.nn.Module, *, accelerator: Accelerator, compute: torch.dtype) -> None:
    """Over all processes, which have read the same files; whole parameters go to the device one layer after the other.

    On CUDA weights travel in the compute precision, and are freed after each layer: autocast's copies of float32 weights would
    stay until the backward pass. CPUs' norms take no weights of another type than their input's.
    """
    device = accelerator.device.type
    compute_in = compute if device == "cuda" and compute != torch.float32 else None
    options: Any = {
        "mesh": init_device_mesh(device, (accelerator.num_processes,)),
        # The outermost too: else validation would leave it whole, and the next weights that are put in would not be seen.
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(param_dtype=compute_in, reduce_dtype=torch.float32, cast_forward_inputs=False),
    }
    for layer in reversed([module for module in model.modules() if isinstance(module, LAYERS)]):  # inner ones first
        fully_shard(layer, **options)
    fully_shard(model, **options)


def laid_as(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whole tensors in the form of the model's own parameters, for `load_state_dict`."""
    own = dict(model.named_parameters())
    return {name: like(tensor, own.get(name)) for name, tensor in tensors.items()}


def like(tensor: Tensor, own: Tensor | None) -> Tensor:
    if not isinstance(own, DTensor):
        return tensor
    # No rank sends: every one has read the file.
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def gradients_of(parameters: Iterable[torch.nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def total_norm(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Of the gradients that this process has."""
    return torch.nn.utils.get_total_norm(gradients_of(parameters))


@dataclass(frozen=True)
class Rows:
    """This rank's, of a parameter of `num_rows`."""

    start: int
    stop: int
    num_rows: int


@dataclass(frozen=True)
class Shards:
    rank: int
    num_ranks: int
    rows: dict[str, Rows]
    parameters: dict[str, torch.nn.Parameter]
    """This rank's rows, for the optimizer."""

    _spread: dict[str, DTensor]

    @classmethod
    def of(cls, parameters: Mapping[str, torch.nn.Parameter]) -> "Shards | None":
        """None where the parameters are whole."""
        spread_ones: dict[str, Any] = {name: p for name, p in parameters.items() if isinstance(p, DTensor)}
        if not spread_ones:
            return None
        assert len(spread_ones) == len(parameters), "what is trained is spread as a whole"
        rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own = {name: torch.nn.Parameter(p.detach().to_local()) for name, p in spread_ones.items()}
        rows = {name: rows_of(p.shape[0], len(own[name]), rank=rank, num_ranks=num_ranks) for name, p in spread_ones.items()}
        return cls(rank, num_ranks, rows, own, spread_ones)

    def collect(self) -> None:
        """Hands the gradients of all micro-batches, which FSDP has reduced, over to the optimizer's parameters."""
        for name, parameter in self.parameters.items():
            spread_one = self._spread[name]
            if isinstance(spread_one.grad, DTensor):
                parameter.grad, spread_one.grad = spread_one.grad.to_local(), None

    def share_overflow(self) -> None:
        """A gradient that overflowed on one rank makes all ranks skip the step."""
        factor = self.total_norm() * 0.0 + 1.0  # not a number where the norm is not finite
        for gradient in gradients_of(self.parameters.values()):
            gradient.mul_(factor)

    def total_norm(self) -> Tensor:
        """Of the gradients, over the rows of all ranks."""
        squared = total_norm(self.parameters.values()).double().square()
        torch.distributed.all_reduce(squared)
        return squared.sqrt().float()

    # ---- files ----

    def file(self, kind: Kind) -> str:
        return part_file(kind, rank=self.rank, of=self.num_ranks)

    def rows_in(self, stored: StoredTensor, *, name: str) -> StoredTensor:
        """This rank's rows of a whole parameter, or of a moment or average of it."""
        return stored.rows(self.rows[name].start, self.rows[name].stop)


def rows_of(num_rows: int, own: int, *, rank: int, num_ranks: int) -> Rows:
    """As torch.chunk divides: as many as the first rank has, until none are left."""
    chunk = -(-num_rows // num_ranks)
    start, stop = (min(number * chunk, num_rows) for number in (rank, rank + 1))
    assert stop - start == own, f"rank {rank} has {own} of {num_rows} rows"
    return Rows(start, stop, num_rows)

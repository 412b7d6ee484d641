"""The host memory that snapshots are copied into."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Arena:
    """One snapshot after the other goes into the same memory, in float32: fresh memory costs its page faults, and in a virtual
    machine those of the host beside. Reached from a GPU, it is pinned, and the copies wait for one another on the device alone.
    """

    _copies: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _reserving: "Future[None] | None" = None

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Makes and touches the memory for these, beside what the caller goes on to do, so that the first copy is no slower than
        the next. What that fails with is raised by the next `take`."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="arena")
        self._reserving = thread.submit(self._touch, dict(tensors))
        thread.shutdown(wait=False)

    def take(self, name: str, tensor: Tensor, *, last: bool = False) -> Tensor:
        """A copy. last: no step comes after, so that what is there in its file's form need not be copied."""
        if last and not tensor.is_cuda and tensor.is_contiguous() and tensor.dtype == torch.float32:
            return tensor.detach()
        if self._reserving is not None:
            self._reserving.result()
            self._reserving = None
        return self._room(name, tensor).copy_(tensor.detach(), non_blocking=True)

    def _room(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._copies:
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            self._copies[name] = torch.empty(tensor.shape, dtype=dtype, pin_memory=tensor.is_cuda)
        return self._copies[name]

    def _touch(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            # By numpy: a fill of torch's would start a team of threads of its own for this one, and keep it.
            self._room(name, tensor).numpy().fill(0)

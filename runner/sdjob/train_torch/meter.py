"""What a program takes: the memory of its tensors, each storage metered from birth to death, and the work of its products.

torch's own FlopCounterMode keeps alive what gradient checkpointing computes again, so that memory cannot be metered beside it.
"""

import weakref
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

ROUNDED_TO = 512  # bytes; CUDA's allocator: https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management
IN_BETWEEN = "activations"
ATEN: Any = torch.ops.aten


def flops_on_cpu(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def flops_backward_on_cpu(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


# torch counts its kernels for CUDA alone; those for CPUs stand in for them here.
FLOPS: dict[Any, Any] = {
    **flop_registry,
    ATEN._scaled_dot_product_flash_attention_for_cpu: flops_on_cpu,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flops_backward_on_cpu,
}


class Meter(TorchDispatchMode):
    """Tensors belong to the part that is named when they are made, or later by hand; "activations" is what nobody named."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._parts: dict[int, str] = {}
        self._now: Counter[str] = Counter()
        self._part = IN_BETWEEN
        self.peak_bytes = 0
        self.parts_at_peak: dict[str, int] = {}
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if counted := FLOPS.get(func._overloadpacket):
            self.flops += counted(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    @property
    def parts_now(self) -> dict[str, int]:
        return dict(self._now)

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        before, self._part = self._part, name
        yield
        self._part = before

    def name(self, part: str, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
                self._move(key_of(tensor.untyped_storage()), part=part)

    def start_again(self) -> None:
        """From here on it looks for a peak and counts work."""
        self.peak_bytes = self.flops = 0
        self._look()

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = key_of(storage)
        if key in self._sizes or not storage.nbytes():
            return
        self._sizes[key] = -(-storage.nbytes() // ROUNDED_TO) * ROUNDED_TO
        self._parts[key] = self._part
        self._now[self._part] += self._sizes[key]
        weakref.finalize(storage, self._forget, key)
        self._look()

    def _move(self, key: int, *, part: str) -> None:
        if key in self._sizes:
            self._now[self._parts[key]] -= self._sizes[key]
            self._now[part] += self._sizes[key]
            self._parts[key] = part

    def _forget(self, key: int) -> None:
        self._now[self._parts.pop(key)] -= self._sizes.pop(key)

    def _look(self) -> None:
        if (total := sum(self._now.values())) > self.peak_bytes:
            self.peak_bytes = total
            self.parts_at_peak = {part: size for part, size in sorted(self._now.items()) if size}


def key_of(storage: torch.UntypedStorage) -> int:
    return storage._cdata  # pyright: ignore[reportPrivateUsage] - its address, which lives as long as it does

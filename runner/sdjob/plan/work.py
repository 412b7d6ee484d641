"""The arithmetic of a training step: FLOPs of a picture, forward and backward, counted as in plan.network."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sdjob.diffusion.lora_scale import by_pattern
from sdjob.plan.activations import block_of, ends_so, is_trained
from sdjob.plan.network import Layer
from sdjob.spec.train import Method

# Their input is the text, the timestep or the noisy latents: nobody asks for its gradient.
NO_INPUT_GRADIENT = re.compile(r"attn2\.to_[kv]$|^conv_in$|_embedding\.linear_1$")


@dataclass(frozen=True)
class Adapters:
    """LoRA's two matrices beside each of the layers whose names end so; a convolution's first one has its kernel."""

    rank: int
    targets: tuple[str, ...]
    ranks: tuple[tuple[str, int], ...] = ()
    """Of layers with one of their own, by pattern."""

    dora: bool = False
    """Beside them each output's magnitude."""

    def chosen(self, layers: Iterable[Layer]) -> Iterator[Layer]:
        return (layer for layer in layers if any(ends_so(layer, target) for target in self.targets))

    def params(self, layers: Iterable[Layer]) -> int:
        return sum(self.rank_of(layer) * (layer.into + layer.out) + self.dora * layer.out for layer in self.chosen(layers))

    def rank_of(self, layer: Layer) -> int:
        return by_pattern(dict(self.ranks), layer.name, otherwise=self.rank)

    def flops(self, layer: Layer) -> int:
        """Of a forward pass through the two matrices, applied to every row that the layer is."""
        return self.rank_of(layer) * layer.flops * (layer.into + layer.out) // (layer.into * layer.out)


@dataclass(frozen=True)
class StepWork:
    """FLOPs, of one picture where nothing else is said."""

    forward: int
    backward: int
    again: int
    """Of the forward pass that gradient checkpointing makes a second time."""

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.again

    def times(self, pictures: int) -> "StepWork":
        return StepWork(self.forward * pictures, self.backward * pictures, self.again * pictures)


def step_work(layers: Sequence[Layer], *, method: Method, adapters: Adapters | None, checkpointing: bool) -> StepWork:
    """Of the UNet alone. `adapters`: with method lora."""
    forward = backward = 0
    reached = list[bool]()
    for layer in layers:
        own = is_trained(layer, method=method, targets=adapters.targets if adapters else ())
        matrices = adapters.flops(layer) if adapters and own else 0
        before = bool(reached) and reached[-1]
        forward += layer.flops + matrices
        backward += backward_of(layer, trained=method == "full", reached=before) + 2 * matrices
        reached.append(before or own)
    return StepWork(forward, backward, computed_again(layers, reached=reached) if checkpointing else 0)


def computed_again(layers: Sequence[Layer], *, reached: Sequence[bool]) -> int:
    """Of each block that the gradient comes to all but its last layer: nobody reads what that gives, and torch stops before."""
    numbered = groupby(zip(layers, reached, strict=True), key=lambda pair: block_of(pair[0]))
    blocks = (list(of_block) for block, of_block in numbered if block)
    return sum(layer.flops for of_block in blocks if of_block[-1][1] for layer, _ in of_block[:-1])


def backward_of(layer: Layer, *, trained: bool, reached: bool) -> int:
    """A product has two gradients, each as much work as itself: of its input and of its weights, or of both that attention reads.

    `reached`: whether a layer before it is trained, so that the gradient must go on.
    """
    if layer.kind == "attention":
        return 2 * layer.flops
    of_input = reached and not NO_INPUT_GRADIENT.search(layer.name)
    return (of_input + trained) * layer.flops

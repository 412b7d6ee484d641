"""What the UNet's forward pass keeps for its backward pass, in bytes a picture.

Kept is what a layer's backward formula reads: SiLU, a norm and a convolution their input, a product its input where its weights
are trained, attention its three inputs and its output. A tensor that several layers keep is counted once, with the first. What
comes before the first trained layer keeps nothing.
tests/unit/plan/test_activations.py holds it to what torch keeps.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sdjob.plan.network import Layer
from sdjob.spec.train import Method

# Where a norm's output is read by SiLU, which keeps it.
BEFORE_SILU = re.compile(r"resnets\.\d+\.norm[12]$|conv_norm_out$")
# Read what attention keeps already, the text, or next to nothing.
NOTHING_OF_ITS_OWN = re.compile(r"attn\d\.to_out\.0$|attn2\.to_[kv]$|time_emb|time_embedding|add_embedding")
# Read what a neighbour keeps: the norm's input, or the norm's output. Where norms are widened each has a narrow copy.
SHARED_UNLESS_WIDENED = re.compile(r"conv_shortcut$|attn1\.to_[kv]$")
GATE = re.compile(r"ff\.net\.0\.proj$")
BLOCK = re.compile(r"(.*?(?:resnets\.\d+|transformer_blocks\.\d+))\.")


@dataclass(frozen=True)
class Numbers:
    """How wide numbers are, in bytes."""

    in_products: int
    """What products, convolutions and attention read and give."""

    in_norms: int
    """What norms read and give: autocast on CUDA computes them in float32."""

    tile: int = 1
    """Channels are filled up to multiples of it, as a TPU's memory is laid out."""

    keeps_for_frozen: bool = True
    """torch's convolutions keep their input whether or not their weights are trained; XLA keeps what is read."""

    def filled(self, size: int, *, channels: int) -> int:
        return size * -(-channels // self.tile) * self.tile // channels if channels else size

    @property
    def widened(self) -> bool:
        return self.in_norms > self.in_products


def kept_of(layer: Layer, *, trained: bool, numbers: Numbers) -> int:
    """`trained`: whether the layer's own weights, or LoRA matrices beside them, get gradients."""
    name, narrow = layer.name, numbers.in_products
    if layer.kind == "norm":
        read = layer.inputs + (layer.outputs if BEFORE_SILU.search(name) else 0)
        return numbers.in_norms * numbers.filled(read, channels=layer.channels)
    if layer.kind == "attention":
        return narrow * numbers.filled(layer.inputs + layer.outputs, channels=layer.channels)
    shared = NOTHING_OF_ITS_OWN.search(name) or (SHARED_UNLESS_WIDENED.search(name) and not numbers.widened)
    reads = trained or (layer.kind == "conv" and numbers.keeps_for_frozen)
    read = numbers.filled(layer.inputs, channels=layer.channels) if reads and not shared else 0
    # The gated half and its gate, as they come out, and GELU of the gate.
    gate = layer.outputs + layer.outputs // 2 if GATE.search(name) else 0
    return narrow * (gate + read)


def is_trained(layer: Layer, *, method: Method, targets: Iterable[str]) -> bool:
    return method == "full" or any(ends_so(layer, target) for target in targets)


def ends_so(layer: Layer, target: str) -> bool:
    """peft's rule: the whole name, or its end behind a dot."""
    return layer.name == target or layer.name.endswith(f".{target}")


def kept_by_layer(
    layers: Iterable[Layer], *, method: Method, numbers: Numbers, targets: tuple[str, ...] = ()
) -> Iterator[tuple[Layer, int]]:
    """Each layer with the bytes a picture that it keeps."""
    reached = False
    for layer in layers:
        trained = is_trained(layer, method=method, targets=targets)
        reached = reached or trained
        yield layer, kept_of(layer, trained=trained, numbers=numbers) if reached else 0


def block_of(layer: Layer) -> str:
    """The block that is computed a second time as a whole under gradient checkpointing; "" outside of them.

    diffusers computes every resnet and every transformer block again; each keeps its input alone.
    """
    found = BLOCK.match(f"{layer.name}.")
    return found[1] if found else ""

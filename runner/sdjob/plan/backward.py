"""The most that a forward and a backward pass hold at once, beside what is held all the time.

The backward pass is walked layer by layer: what layers have kept goes, what their weights get as gradients comes. Of a small
batch the peak lies at its end, of a large one at its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sdjob.plan.activations import Numbers, block_of, kept_by_layer
from sdjob.plan.network import Layer
from sdjob.plan.work import Adapters
from sdjob.spec.train import Method


@dataclass(frozen=True)
class Pass:
    """What a pass over the layers depends on."""

    method: Method
    adapters: Adapters | None
    """With method lora."""

    pictures: int
    numbers: Numbers
    copies_weights: bool
    """Autocast makes a narrow copy of each float32 weight, which is kept for the backward pass."""

    checkpointing: bool
    accumulates: bool
    """Gradients of the micro-steps before are there all the time."""

    gradient_bytes: float = 4
    """Of a weight: torch's are as wide as the float32 masters."""

    gradients_beside: bool = False
    """The gradients within a block that is computed again are all kept beside what it keeps."""


@dataclass(frozen=True)
class Peak:
    """Bytes."""

    gradients: int
    activations: int
    """All else, narrow copies of weights among it."""

    @property
    def total(self) -> int:
        return self.gradients + self.activations


@dataclass(frozen=True)
class Held:
    """Of one layer, in bytes."""

    block: str
    entry: int
    """The block's input, where the block is computed again."""

    kept: int
    gradient: int
    passing: int
    """What its backward formula reads and gives while it runs."""


def peak_of(layers: Sequence[Layer], *, run: Pass) -> Peak:
    held = list(held_by_layer(layers, run=run))
    all_gradients = sum(one.gradient for one in held)
    before, gradients = sum(one.entry if run.checkpointing and one.block else one.kept for one in held), 0
    best = Peak(all_gradients, 0)  # as the optimizer finds it
    for block, group in reversed([(block, list(group)) for block, group in groupby(held, key=lambda one: one.block)]):
        again = run.checkpointing and bool(block)
        before -= sum(one.entry if again else one.kept for one in group)
        inside = sum(one.kept for one in group)
        entry = group[0].entry + (inside if run.gradients_beside else 0) if again else 0
        for one in reversed(group):
            there = all_gradients if run.accumulates else gradients
            best = max(best, Peak(there, before + entry + inside + one.passing), key=lambda peak: peak.total)
            inside -= one.kept
            gradients += one.gradient
    return best


def held_by_layer(layers: Sequence[Layer], *, run: Pass) -> list[Held]:
    targets = run.adapters.targets if run.adapters else ()
    found = list[Held]()
    kept = kept_by_layer(layers, method=run.method, numbers=run.numbers, targets=targets)
    for block, group in groupby(kept, key=lambda pair: block_of(pair[0])):
        members = list(group)
        reached = any(kept_bytes for _, kept_bytes in members)
        for number, (layer, kept_bytes) in enumerate(members):
            entry = run.pictures * entry_of(layer, numbers=run.numbers) if block and reached and not number else 0
            found.append(held(layer, kept_bytes, block=block, entry=entry, run=run))
    return found


def held(layer: Layer, kept: int, *, block: str, entry: int, run: Pass) -> Held:
    """`kept`: bytes a picture."""
    full = run.method == "full"
    trained = layer.params if full else (run.adapters.params([layer]) if run.adapters else 0)
    copy = trained * run.numbers.in_products if run.copies_weights and layer.kind in {"conv", "linear"} else 0
    gradient = round(run.gradient_bytes * trained)
    return Held(
        block=block,
        entry=entry,
        kept=run.pictures * kept + copy,
        gradient=gradient,
        passing=run.pictures * passing_of(layer, numbers=run.numbers) + gradient + copy,
    )


def passing_of(layer: Layer, *, numbers: Numbers) -> int:
    """The gradients of its output and of its input."""
    wide = numbers.in_norms if layer.kind == "norm" else numbers.in_products
    return wide * numbers.filled(layer.inputs + layer.outputs, channels=layer.channels)


def entry_of(layer: Layer, *, numbers: Numbers) -> int:
    return numbers.in_products * numbers.filled(layer.inputs, channels=layer.channels)

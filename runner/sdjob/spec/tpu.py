"""The TPU slices that exist on GKE, and what a chip can do.

Machine types and topologies: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
Peaks and memory: https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p, .../v6e, .../tpu7x ("Peak compute per chip (bf16)",
"HBM capacity per chip").
"""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement


@dataclass(frozen=True)
class Generation:
    """One kind of TPU: its labels on GKE and the shapes that its slices come in."""

    name: str
    accelerator: str
    """The value of cloud.google.com/gke-tpu-accelerator."""
    shapes: dict[str, tuple[int, ...]]
    """Topology to the numbers of chips that one of its VMs may have; two where the topology alone is ambiguous."""
    machine: str
    """The machine type up to its number of chips."""
    peak_tflops: float
    """Of one chip, in bf16."""
    memory_gib: int
    """Of one chip."""
    devices_per_chip: int = 1

    def machine_type(self, *, chips_per_vm: int) -> str:
        return f"{self.machine}-{chips_per_vm}t"


# 8 chips are one VM of 8, or two VMs of 4, under the same two labels.
FLAT = {
    "1x1": (1,),
    "2x2": (4,),
    "2x4": (8, 4),
    "4x4": (4,),
    "4x8": (4,),
    "8x8": (4,),
    "8x16": (4,),
    "16x16": (4,),
}
FEW_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


def cubes(*, most_chips: int) -> dict[str, tuple[int, ...]]:
    """Slices of a 3D torus: below 64 chips a short list, from there on sides in ascending multiples of 4."""
    sides = range(4, 65, 4)
    large = [
        f"{a}x{b}x{c}"
        for a, b in combinations_with_replacement(sides, 2)
        if a * b * b <= most_chips
        for c in range(b, min(64, most_chips // (a * b)) + 1, 4)
    ]
    return dict.fromkeys((*FEW_CUBES, *large), (4,))


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", "tpu-v4-podslice", cubes(most_chips=4096), "ct4p-hightpu", 275, 32),
        Generation("v5e", "tpu-v5-lite-podslice", FLAT, "ct5lp-hightpu", 197, 16),
        Generation("v5p", "tpu-v5p-slice", cubes(most_chips=6144), "ct5p-hightpu", 459, 95),
        Generation("v6e", "tpu-v6e-slice", FLAT, "ct6e-standard", 918, 32),
        # A v7x chip is two chiplets, and each is a device of its own to JAX: https://cloud.google.com/tpu/docs/tpu7x
        Generation("v7x", "tpu7x", {"1x1x1": (1,), **cubes(most_chips=9216)}, "tpu7x-standard", 2307, 192, devices_per_chip=2),
    )
}


def num_chips(topology: str) -> int:
    return math.prod(int(side) for side in topology.split("x"))

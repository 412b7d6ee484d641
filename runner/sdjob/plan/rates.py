"""How fast memories are, and which share of their peak arithmetic devices reach in this kind of training."""

from sdjob.spec.hardware import Accelerator
from sdjob.spec.nvidia import SAME

# GB a second. GPUs: the products' datasheets (spec/nvidia.py says where) and https://cloud.google.com/compute/docs/gpus; TPUs:
# https://cloud.google.com/tpu/docs/v4, .../v5e ("HBM bandwidth per chip"), .../v5p, .../v6e, .../tpu7x.
BANDWIDTH = {
    "t4": 320, "v100": 900, "p100": 732, "l4": 300, "l40s": 864, "a10": 600, "a10g": 600, "a30": 933, "a40": 696, "a100": 1555,
    "a100-80gb": 1935, "h100-80gb": 3350, "h100-mega-80gb": 3350, "h200-141gb": 4800, "b200": 8000,
    "rtx-3090": 936, "rtx-4090": 1008,
    "v4": 1228, "v5e": 819, "v5p": 2765, "v6e": 1640, "v7x": 7380,
}  # fmt: skip
# Published: 28 % on A100 (290 pictures a second on eight, https://github.com/mosaicml/diffusion); 18 % on H100 (MLPerf Training
# 4.0, 73 pictures a second of one, https://github.com/mlcommons/training_results_v4.0); 33 % on TPU v5p (64 a second and chip,
# diffusers' examples/research_projects/pytorch_xla). Each with a fifth more and a third less; of the others a wide range.
SHARES = {
    "a100": (0.19, 0.34),
    "a100-80gb": (0.19, 0.34),
    "h100-80gb": (0.12, 0.22),
    "h100-mega-80gb": (0.12, 0.22),
    "v5p": (0.22, 0.40),
}
ASSUMED_SHARE = (0.15, 0.35)


def bytes_per_s(machine: Accelerator) -> float | None:
    """Of one device."""
    name = SAME.get(machine.name or "", machine.name)
    found = BANDWIDTH.get(name or "")
    return None if found is None else found * 1e9 / (2 if name == "v7x" else 1)


def shares_of(machine: Accelerator) -> tuple[float, float]:
    return SHARES.get(SAME.get(machine.name or "", machine.name or ""), ASSUMED_SHARE)

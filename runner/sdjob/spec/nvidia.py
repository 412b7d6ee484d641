"""NVIDIA's accelerators: memory, peak arithmetic, and which of them compute in bf16.

Peaks are dense (datasheets often print twice as much, with sparsity), in bf16 with fp32 sums; in fp16 where there is no bf16,
and in fp32 on the oldest, which gain nothing by less. Sources, as each row names them:

ds     the product's datasheet, linked from https://www.nvidia.com/en-us/data-center/ (a100, h100, h200, l4, l40s, t4, v100 ...)
hgx    https://www.nvidia.com/en-us/data-center/hgx/ and .../gb200-nvl72/, .../gb300-nvl72/: a board's figure over its GPUs
x2     GeForce, white papers of Turing to Blackwell: matrices in fp16 with fp32 sums run at twice the rate of fp32
x4     the workstation cards of the same chips run at four times the rate of fp32; rates of fp32 on the products' own pages
turing https://images.nvidia.com/aem-dam/en-zz/Solutions/design-visualization/technologies/turing-architecture/NVIDIA-Turing-Architecture-Whitepaper.pdf

bf16 came with compute capability 8.0 (Ampere): https://docs.nvidia.com/cuda/cuda-c-programming-guide, "Arithmetic Instructions";
capabilities by product: https://developer.nvidia.com/cuda-gpus
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One device, as a node has several of."""

    name: str
    memory_gib: int
    """Of one device: a K80's board has two."""
    peak_tflops: float | None
    """None where no source was found."""
    has_bf16: bool


# name, GiB, peak, source
OLDER = """
k80 12 4.37 ds | m40 24 7 ds | m60 8 4.8 ds | p4 8 5.5 ds | p40 24 12 ds | p100 16 21.2 ds | v100 16 125 ds | t4 16 65 ds
titan-v 12 110 ds | titan-rtx 24 130.5 turing
gtx-1060 6 4.4 ds | gtx-1070 8 6.5 ds | gtx-1080 8 8.9 ds | gtx-1080-ti 11 11.3 ds
rtx-2060 6 25.8 turing | rtx-2070 8 29.9 turing | rtx-2080 8 40.3 turing | rtx-2080-ti 11 53.8 turing
rtx-4000 8 57 turing | rtx-5000 16 89.2 turing | rtx-6000 24 130.5 turing
"""
NEWER = """
a2 16 18 ds | a10 24 125 ds | a10g 24 70 ds | a16 16 17.9 ds | a30 24 165 ds | a40 48 149.7 ds
a100 40 312 ds | a100-40gb 40 312 ds | a100-80gb 80 312 ds | l4 24 121 ds | l40 48 181 ds | l40s 48 362 ds
h100 80 989 ds | h100-80gb 80 989 ds | h100-mega-80gb 80 989 ds | h200 141 989 ds | h200-141gb 141 989 ds | gh200 96 990 ds
b200 180 2250 hgx | b300 268 2250 hgx | gb200 186 2500 hgx | gb300 279 2500 hgx
rtx-a2000 12 31.9 x4 | rtx-a4000 16 76.7 x4 | rtx-a4500 20 94.6 x4 | rtx-a5000 24 111.1 x4 | rtx-a6000 48 154.8 x4
rtx-4000-ada 20 106.9 x4 | rtx-5000-ada 32 261.1 x4 | rtx-6000-ada 48 364.2 x4
rtx-pro-4500 32 - - | rtx-pro-6000 96 500 x4
rtx-3050 8 18.2 x2 | rtx-3060 12 25.5 x2 | rtx-3060-ti 8 32.4 x2 | rtx-3070 8 40.6 x2 | rtx-3070-ti 8 43.5 x2
rtx-3080 10 59.5 x2 | rtx-3080-ti 12 68.2 x2 | rtx-3090 24 71 x2 | rtx-3090-ti 24 80 x2
rtx-4050 6 - - | rtx-4060 8 30.2 x2 | rtx-4060-ti 8 44.1 x2 | rtx-4070 12 58.3 x2 | rtx-4070-ti 12 80.2 x2
rtx-4080 16 97.5 x2 | rtx-4090 24 165.2 x2
rtx-5060 8 38.4 x2 | rtx-5070 12 61.7 x2 | rtx-5080 16 112.6 x2 | rtx-5090 32 209.5 x2
"""


def rows(table: str, *, has_bf16: bool) -> list[Gpu]:
    gpus: list[Gpu] = []
    for row in table.replace("\n", "|").split("|"):
        if row.strip():
            name, gib, peak, _ = row.split()
            gpus.append(Gpu(name, int(gib), None if peak == "-" else float(peak), has_bf16))
    return gpus


GPUS = {gpu.name: gpu for gpu in (*rows(OLDER, has_bf16=False), *rows(NEWER, has_bf16=True))}
WITHOUT_BF16 = frozenset(gpu.name for gpu in GPUS.values() if not gpu.has_bf16)
NAMES = sorted(GPUS)
# Where two names mean one thing, the one that the tables of the clouds have.
SAME = {"a100-40gb": "a100", "h100": "h100-80gb", "h200": "h200-141gb"}
IN_THE_CLOUDS = "t4, v100, p100, l4, l40s, a10g, a100, a100-80gb, h100-80gb, h100-mega-80gb, h200-141gb, b200"

"""What a CPU can, as the kernel tells it."""

import platform
import re
from pathlib import Path
from typing import Literal

# For each of these XLA's kernels of matrices differ, and with them the order of additions. They are chosen while a program
# runs, by the CPU at hand: https://github.com/google/XNNPACK/tree/master/ynnpack/kernels/dot
DECISIVE = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)

Isa = Literal["avx2", "avx512"]
# ATen's and oneDNN's AVX-512 kernels need all of these: https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Those of DECISIVE that the CPU has; none where there is no /proc."""
    return tuple(sorted({*DECISIVE} & _flags(cpuinfo)))


def widest_isa(cpuinfo: Path = Path("/proc/cpuinfo")) -> Isa:
    """Of those that arithmetic is held to; every x86 server of the last ten years has the narrower one."""
    return "avx512" if _flags(cpuinfo) >= AVX512 else "avx2"


def _flags(cpuinfo: Path) -> set[str]:
    if not cpuinfo.is_file():
        return set()
    # "flags" on x86, "Features" on ARM: https://docs.kernel.org/arch/x86/cpuinfo.html
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    return {*(line[1].split() if line else ())}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """All that the kernel says of what the first core can: machine code that a compiler made for it may need any of it."""
    if not cpuinfo.is_file():
        return platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))

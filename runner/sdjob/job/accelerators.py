"""NVIDIA and TPU devices of this machine, by what the driver's tool and the kernel say: neither torch nor jax is imported."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdjob.core.errors import UnavailableError

# GKE mounts the driver's tools here, and not every image has the folder on its PATH:
# https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
GKE_TOOLS = "/usr/local/nvidia/bin"
NVIDIA_SMI_S = 20.0  # it answers in one or two seconds; with a hanging driver it never does
DETAILS = "name,driver_version,memory.total,compute_cap"
GOOGLE = "0x1ae0"
# PCI devices of Google's that are TPU chips, and not network cards: jax/_src/hardware_utils.py in jax 0.10
TPU_CHIPS = {
    "0x0027": "v2 or v3",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "v7x",
}
# Set in every container of a TPU slice: https://cloud.google.com/kubernetes-engine/docs/how-to/tpus
TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "TPU_TOPOLOGY", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES")


@dataclass(frozen=True)
class Gpu:
    name: str
    """The driver's own."""

    driver: str | None = None
    memory_mib: int | None = None
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Tpus:
    chips: tuple[str, ...] = ()
    """The generation of each chip on the PCI bus."""

    devices: tuple[str, ...] = ()
    """Their files under /dev: what a container must have been given."""

    variables: tuple[str, ...] = ()
    """`NAME=value` of what tells a process its place in the slice."""


def gpus() -> list[Gpu]:
    """Empty where there is no driver. UnavailableError where the driver's tool does not come to an end."""
    if rows := _nvidia_smi(DETAILS):
        return [gpu_of(row) for row in rows]
    return [Gpu(row) for row in _nvidia_smi("name")]  # drivers before 510 know no compute_cap, and then answer nothing


def gpu_of(row: str) -> Gpu:
    name, driver, memory, capability = (cell.strip() for cell in row.rsplit(",", 3))
    major, dot, minor = capability.partition(".")
    return Gpu(
        name,
        driver=driver or None,
        memory_mib=int(memory) if memory.isdecimal() else None,  # "[N/A]" on some
        compute_capability=(int(major), int(minor)) if dot and major.isdecimal() and minor.isdecimal() else None,
    )


def _nvidia_smi(fields: str) -> list[str]:
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=GKE_TOOLS)
    if tool is None:
        return []
    try:
        answer = subprocess.run(
            [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVIDIA_SMI_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"nvidia-smi has not answered within {NVIDIA_SMI_S:g} s: the NVIDIA driver hangs.",
            next_step="Restart this machine, or use another one.",
        ) from error
    except (FileNotFoundError, PermissionError, subprocess.CalledProcessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def gpu_files(*, root: Path = Path("/")) -> list[str]:
    """NVIDIA's devices as the kernel shows them, though there be no tool to ask."""
    return sorted(path.name for path in (root / "dev").glob("nvidia[0-9]*"))


def tpus(*, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Tpus:
    """No metadata server is asked: outside of Google's cloud that would be a wait for nothing."""
    pci = sorted((root / "sys/bus/pci/devices").glob("*"))
    chips = tuple(generation for device in pci if (generation := _tpu_chip(device)))
    names = sorted(path.relative_to(root) for path in (*root.glob("dev/accel[0-9]*"), *root.glob("dev/vfio/[0-9]*")))
    variables = tuple(f"{name}={environment[name]}" for name in TPU_VARIABLES if environment.get(name))
    found = Tpus(chips, tuple(f"/{name}" for name in names), variables)
    # vfio hands through any kind of card: without another sign of a TPU it is none.
    return found if chips or variables or any("accel" in name for name in found.devices) else Tpus()


def _tpu_chip(device: Path) -> str | None:
    try:
        vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "device"))
    except OSError:
        return None
    return TPU_CHIPS.get(kind) if vendor == GOOGLE else None

"""This machine: accelerators, cores, memory, and whether torch can use the GPUs that are here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdjob.core.errors import UnavailableError
from sdjob.job import machine
from sdjob.job.accelerators import Gpu, Tpus, gpu_files, gpus, tpus
from sdjob.job.cgroup import cpu_quota, memory_limit
from sdjob.job.doctor.finding import Finding, failed, ok, warning

# float32 weights of Stable Diffusion 1.5 (1.07 billion parameters in UNet, VAE and text encoder) and an interpreter with torch.
LITTLE_MEMORY_BYTES = 5 * 10**9
TORCH_TRIAL_S = 50.0  # a cold import from a network disk takes half a minute
TORCH_TRIAL = """
import json
import torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
for number in range(count):
    torch.ones(1, device=f"cuda:{number}").item()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": count}))
"""


def accelerators(*, expected: bool) -> Iterator[Finding]:
    """`expected`: nothing says that this machine should have none, so having none is worth a warning."""
    found, chips = gpus(), tpus()
    if found:
        yield ok("accelerator", gpus_told(found))
    if chips != Tpus():
        yield ok("accelerator", tpus_told(chips))
    if found or chips != Tpus():
        return
    files = gpu_files()
    if files:
        yield warning(
            "accelerator",
            f"the kernel shows {', '.join(files)}, and nvidia-smi does not run here.",
            next_step="Start the container with NVIDIA's runtime (or device plugin), so that it gets the driver's tools.",
        )
    else:
        state, what = (warning if expected else ok), "no NVIDIA device and no TPU: jobs train on the CPU."
        yield state("accelerator", what)


def gpus_told(found: list[Gpu]) -> str:
    first = found[0]
    told = [f"{len(found)} x {first.name} (run.accelerator: {machine.nvidia_name(first.name)}:{len(found)})"]
    told += [f"{first.memory_mib} MiB each"] if first.memory_mib else []
    told += (
        [f"compute capability {first.compute_capability[0]}.{first.compute_capability[1]}"] if first.compute_capability else []
    )
    told += [f"driver {first.driver}"] if first.driver else []
    others = sorted({gpu.name for gpu in found} - {first.name})
    told += [f"of several kinds: also {', '.join(others)}"] if others else []
    return ", ".join(told) + "."


def tpus_told(found: Tpus) -> str:
    told = [f"{len(found.chips)} TPU chips {found.chips[0]}"] if found.chips else ["a TPU machine"]
    told += [f"devices {', '.join(found.devices)}"] if found.devices else ["no device file under /dev"]
    return "; ".join([*told, *found.variables]) + "."


def torch_on_gpus() -> Iterator[Finding]:
    """In a process of its own, since torch takes seconds to import and may end a process that loads it."""
    num_gpus, version = len(gpus()), machine.installed_version("torch")
    if not num_gpus or version is None:
        return
    trial = torch_trial()
    if trial["devices"] < num_gpus:
        built = f"built for CUDA {trial['cuda']}" if trial["cuda"] else "built for the CPU alone"
        yield failed(
            "torch",
            UnavailableError(
                f"torch {trial['version']}, {built}, can use {trial['devices']} of the {num_gpus} NVIDIA devices.",
                next_step="Install a torch whose CUDA this driver knows (https://pytorch.org/get-started/locally).",
            ),
        )
    else:
        yield ok("torch", f"torch {trial['version']} with CUDA {trial['cuda']} computes on all {num_gpus} devices.")


def torch_trial() -> dict[str, Any]:
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-c", TORCH_TRIAL], capture_output=True, text=True, check=True, timeout=TORCH_TRIAL_S
        )
        return json.loads(answer.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"torch has not answered within {TORCH_TRIAL_S:g} s.", next_step="Look at nvidia-smi: a device may hang."
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise UnavailableError(f"torch cannot use the devices: {last}", next_step="Try: python -c 'import torch'.") from error


def cores() -> Iterator[Finding]:
    usable, there, quota = machine.num_cores(), os.cpu_count() or 1, cpu_quota()
    limit = f", the container's quota is {quota:g}" if quota is not None else ""
    told = f"{usable} of {there} cores may be used{limit}."
    yield ok("cpu", told)


def memory() -> Iterator[Finding]:
    total, available = memory_of_machine()
    limit = memory_limit()
    told = f"{readable(available)} of {readable(total)} are available."
    if limit is not None and limit.limit_bytes < total:
        available = min(available, limit.limit_bytes - limit.used_bytes)
        whole = f"{readable(limit.limit_bytes)} (the machine has {readable(total)})"
        told = f"{readable(available)} are available of the container's {whole}."
    if available < LITTLE_MEMORY_BYTES:
        yield warning("memory", told, next_step="Loading Stable Diffusion 1.5 takes about 5 GB: give the container more.")
    else:
        yield ok("memory", told)


def memory_of_machine(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """(total, available) in bytes."""
    lines = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
    kib = {line[0].rstrip(":"): int(line[1]) for line in lines}
    return kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024


def readable(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"

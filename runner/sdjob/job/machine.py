"""What this machine has. Looked at without torch, which takes seconds to import."""

import math
import os
import re
import shutil
import socket
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import get_args

from sdjob.core.cpu import Isa, widest_isa
from sdjob.core.errors import UnavailableError, UsageError
from sdjob.job.accelerators import gpus
from sdjob.job.cgroup import cpu_quota
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.nvidia import NAMES

ISA = "SDJOB_ISA"  # what the arithmetic of a new run on a CPU is held to


def num_cores() -> int:
    """Cores that this process may use: a container's cpuset and its quota count. More threads than that would only wait."""
    quota = cpu_quota()
    allowed = len(os.sched_getaffinity(0))
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def gpu_names() -> list[str]:
    """The NVIDIA driver's names of its devices; empty where there is no driver."""
    return [gpu.name for gpu in gpus()]


def accelerator_here() -> str | None:
    """This machine's NVIDIA devices as `run.accelerator` spells them; None where there are none."""
    found = gpu_names()
    return f"{nvidia_name(found[0])}:{len(found)}" if found else None


def nvidia_name(driver_name: str) -> str:
    """`nvidia-t4` for the driver's "Tesla T4": the longest of the known names in it; `nvidia` for one that is not known."""
    spelled = "-" + driver_name.lower().replace(" ", "-") + "-"
    known = [name for name in NAMES if f"-{name}-" in spelled]
    return f"nvidia-{max(known, key=len)}" if known else "nvidia"


OPTIMIZER_PACKAGES = {"prodigy": "prodigyopt", "adamw8bit": "bitsandbytes"}


def require(accelerator: Accelerator) -> None:
    """Exit 69 where the machine lacks what the job names."""
    if accelerator.kind != "nvidia":
        return
    found = gpu_names()
    if len(found) < accelerator.devices_per_node:
        raise UnavailableError(
            f"the job asks for {accelerator.devices_per_node} NVIDIA device(s); this machine has {len(found)}.",
            where="run.accelerator",
            next_step="Leave the field away to use what the machine has, or set cpu.",
        )


def require_xformers(accelerator: Accelerator) -> None:
    """Exit 69 where a job asks for xformers and this machine cannot have it; asked before anything is downloaded or claimed."""
    field, otherwise = "train.attention", "or set sdpa, which torch brings with it."
    if accelerator.kind != "nvidia":
        raise UnavailableError(
            "xformers needs CUDA, and the job would run on the CPU here.",
            where=field,
            next_step=f"Run it where there is an NVIDIA device, {otherwise}",
        )
    torch = installed_version("torch") or "VERSION"
    fitting = f"`pip install xformers torch=={torch.partition('+')[0]}` (each xformers is built for one torch), {otherwise}"
    if installed_version("xformers") is None:
        raise UnavailableError("the package xformers is not installed.", where=field, next_step=fitting)
    if (built_for := required_exactly("torch", by="xformers")) not in {None, torch.partition("+")[0]}:
        raise UnavailableError(
            f"the xformers that is installed is built for torch {built_for}, and torch is {torch}.",
            where=field,
            next_step=fitting,
        )


def require_optimizer(name: str, *, accelerator: Accelerator) -> None:
    """Exit 69 where this machine lacks what the job's optimizer needs; asked as early."""
    field = "train.optimizer.name"
    if name == "adamw8bit" and accelerator.kind != "nvidia":
        raise UnavailableError(
            "adamw8bit needs CUDA, and the job would run on the CPU here.",
            where=field,
            next_step="Run it where there is an NVIDIA device, or set adamw, or adafactor, which keeps even less.",
        )
    package = OPTIMIZER_PACKAGES.get(name)
    if package and installed_version(package) is None:
        raise UnavailableError(
            f"{name} needs the package {package}, which is not installed.", where=field, next_step=f"pip install 'sdjob[{name}]'"
        )


def require_compiler(accelerator: Accelerator, *, scratch: Path) -> None:
    """Exit 69 where a job asks for torch.compile and this machine lacks what that builds its programs with; asked as early.

    torch's code for CPUs is C++, and takes $CXX or g++; triton, for GPUs, takes $CC, gcc or clang. Both include Python.h.
    """
    named, usual = ("CC", ("gcc", "clang")) if accelerator.kind == "nvidia" else ("CXX", ("g++",))
    asked = [os.environ[named]] if os.environ.get(named) else usual
    lacks = [] if any(map(shutil.which, asked)) else [f"a compiler ({' or '.join(asked)})"]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        lacks.append("Python's header files")
    if re.search(r"\s", str(scratch.absolute())):
        raise UsageError(
            f"torch hands its compiler paths below {scratch} as they are, and a blank would end them.",
            where="run.scratch",
            next_step="Name a folder without blanks, or leave train.compile out.",
        )
    if lacks:
        raise UnavailableError(
            f"torch.compile needs {' and '.join(lacks)}, and this machine has none.",
            where="train.compile",
            next_step="Install them (Debian: apt-get install g++ python3-dev), or leave the field out.",
        )


def installed_version(package: str) -> str | None:
    """Read from the package's metadata: nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def required_exactly(package: str, *, by: str) -> str | None:
    """The one version of a package that another one names with ==; None where it names a range or nothing."""
    pinned = re.compile(rf"{re.escape(package)}\s*\(?==\s*([0-9][0-9.]*)\)?\s*(;.*)?")
    found = (pinned.fullmatch(requirement) for requirement in metadata.requires(by) or [])
    return next((match[1] for match in found if match), None)


def host_name() -> str:
    return socket.gethostname()


def isa() -> Isa:
    """What arithmetic on this CPU is held to: SDJOB_ISA, else the widest that it has.

    Raises: UsageError where SDJOB_ISA names none, or one that this CPU does not have.
    """
    named, widest = os.environ.get(ISA), widest_isa()
    if not named:
        return widest
    if named not in get_args(Isa):
        raise UsageError(
            f"{named!r} is no instruction set.", where=ISA, next_step=f"Set it to one of {', '.join(get_args(Isa))}."
        )
    if named == "avx512" and widest != "avx512":
        raise UsageError("this CPU has no AVX-512.", where=ISA, next_step="Set it to avx2, or leave it out.")
    return "avx2" if named == "avx2" else "avx512"


def scratch_root(job: JobSpec | None) -> Path:
    """The job's `run.scratch`, else SDJOB_SCRATCH, else sdjob-UID under TMPDIR."""
    named = (job.run.scratch if job else None) or os.environ.get("SDJOB_SCRATCH")
    if named:
        return Path(named)
    return Path(os.environ.get("TMPDIR", "/tmp")) / f"sdjob-{os.getuid()}"  # noqa: S108 (made with mode 0700)

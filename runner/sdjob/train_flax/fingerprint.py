"""What arithmetic depends on beside the job; two attempts that differ here agree to rounding only."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np

from sdjob.core.cpu import instruction_sets
from sdjob.spec.task import TrainTask

FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# They say what else is written and how long devices wait; how many there are has an entry of its own.
HARMLESS = ("--xla_dump_", "--xla_cpu_collective_", "--xla_force_host_platform_device_count")


def fingerprint(task: TrainTask) -> dict[str, Any]:
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    return {
        "backend": "flax",
        "device": platform.machine() if on_cpu else device.device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
        "threads": task.threads,
        # Of the CPU, and not of --xla_cpu_max_isa: the kernels of matrices that are not compiled do not ask that flag.
        "isa": " ".join(instruction_sets()) if on_cpu else None,
        "flags": compiler_flags(os.environ),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__},
    }


def compiler_flags(environment: Mapping[str, str]) -> list[str]:
    given = [flag for name in FLAGS for flag in environment.get(name, "").split()]
    return sorted(flag for flag in given if not flag.startswith(HARMLESS))

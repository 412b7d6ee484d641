"""The trainer's processes: argv, environment, and what they are told of their task. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from sdjob.core.channel import Message
from sdjob.core.cpu import Isa
from sdjob.job.nodes.node import LOOPBACK
from sdjob.spec.task import Device, TrainTask
from sdjob.spec.train import Backend, TrainSpec

# A trainer reads local folders only; a hidden look at the network would be slow and would not be ours.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
# What a run's first attempt had is held by all later ones: so the next machine adds up alike, though its CPU may know more.
ARITHMETIC: dict[Isa, dict[str, str]] = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_CBWR": "AVX512"},
}
# A step frees its gradients and the next one asks for as much: given back to the kernel in between, all their pages would be made
# and zeroed anew. In bytes (https://man7.org/linux/man-pages/man3/mallopt.3.html); a libc other than GNU's ignores them.
KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
PORTABLE_XLA = "--xla_cpu_max_isa=AVX2"
# Virtual devices share the cores, and one of them may draw pictures while the others wait: XLA would end the process after 40 s.
PATIENT_XLA = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600",
    "--xla_cpu_collective_call_terminate_timeout_seconds=7200",
    "--xla_cpu_collective_timeout_seconds=7200",
)

# What says to torch that a process is one of a gang; an outer launcher's is not ours.
# https://docs.pytorch.org/docs/stable/distributed.html#choosing-the-network-interface-to-use
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
RENDEZVOUS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@dataclass(frozen=True)
class Command:
    """Two are equal where processes are started alike."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    task: Message = field(default_factory=dict[str, Any], compare=False)
    """What the process is told when it is to begin: the file, and in `environment` what it needs to find the other ones. Nothing
    of that matters to what it imports."""


@dataclass(frozen=True)
class GangShape:
    backend: Backend
    num_processes: int
    """Of this node."""

    devices: int
    """Of each process. On a CPU flax divides the one process into so many virtual devices."""

    device: Device
    threads: int
    deterministic: bool
    port: int
    """For the processes' rendezvous, at the first node."""

    node: int = 0
    nodes: int = 1
    host: str = LOOPBACK
    """The first node as this one reaches it."""

    interface: str | None = "lo"
    """Towards the other processes; None: gloo finds one."""

    isa: Isa = "avx2"
    """What arithmetic on a CPU is held to where it must be deterministic."""

    keeps_memory: bool = False
    """What one step frees and the next one needs is not given back to the kernel: a twentieth of a full step on a CPU."""

    @property
    def num_ranks(self) -> int:
        return self.nodes * self.num_processes

    @classmethod
    def of(cls, task: TrainTask, *, num_processes: int, num_devices: int) -> Self:
        """Of a node that is alone, without a port yet; `num_devices` of the node."""
        train = task.job.train
        return cls(
            backend=train.backend,
            num_processes=num_processes,
            devices=num_devices // num_processes,
            device=task.device,
            threads=task.threads,
            deterministic=bool(train.deterministic),
            port=0,
            isa=task.isa,
            keeps_memory=keeps_memory(train, device=task.device),
        )


def keeps_memory(train: TrainSpec, *, device: Device) -> bool:
    return device == "cpu" and train.backend == "torch" and train.method == "full"


def early_commands(*, shape: GangShape, environment: Mapping[str, str]) -> list[Command]:
    """Without a task; neither the shape's port nor its hosts matter yet."""
    # -P: the folder that a person stands in may hold a torch.py of their own.
    argv = (sys.executable, "-P", "-m", f"sdjob.train_{shape.backend}")
    inherited = {name: value for name, value in environment.items() if name not in RENDEZVOUS}
    arithmetic = _of_flax(shape, inherited) if shape.backend == "flax" else _of_torch(shape)
    return [Command(argv, {**inherited, **QUIET, **arithmetic, **_memory(shape, inherited)})] * shape.num_processes


def trainer_commands(task_file: Path, *, shape: GangShape, environment: Mapping[str, str]) -> list[Command]:
    return [
        replace(command, task={"event": "task", "file": str(task_file), "environment": _rank(shape, rank, environment)})
        for rank, command in enumerate(early_commands(shape=shape, environment=environment))
    ]


def _of_flax(shape: GangShape, environment: Mapping[str, str]) -> dict[str, str]:
    if shape.device != "cpu":
        return {}
    flags = [environment.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={shape.devices}"]
    flags += PATIENT_XLA if shape.devices * shape.num_ranks > 1 else ()
    flags += [PORTABLE_XLA] if shape.deterministic else []
    # XLA divides its work by the number of threads, which is not the number of cores then: so it adds up alike on fewer cores.
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flag for flag in flags if flag), "PJRT_NPROC": str(shape.threads)}


def _of_torch(shape: GangShape) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(shape.threads), "MKL_NUM_THREADS": str(shape.threads)}
    if shape.device == "cuda":
        # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        return threads | ({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if shape.deterministic else {})
    return threads | {"ACCELERATE_USE_CPU": "true"} | (ARITHMETIC[shape.isa] if shape.deterministic else {})


def _memory(shape: GangShape, environment: Mapping[str, str]) -> dict[str, str]:
    """Whoever has set malloc themselves, or has another one, is left alone."""
    own = any(name.startswith("MALLOC_") or name in {"LD_PRELOAD", "GLIBC_TUNABLES"} for name in environment)
    return KEPT_MEMORY if shape.keeps_memory and not own else {}


def _rank(shape: GangShape, local_rank: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Ranks are numbered node after node."""
    if shape.num_ranks == 1:
        return {}
    return _interface(shape, environment) | {
        "RANK": str(shape.node * shape.num_processes + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(shape.num_ranks),
        "LOCAL_WORLD_SIZE": str(shape.num_processes),
        "MASTER_ADDR": shape.host,
        "MASTER_PORT": str(shape.port),
    }


def _interface(shape: GangShape, environment: Mapping[str, str]) -> dict[str, str]:
    """Over machines a person's own choice stands: which of several networks is the fast one is not seen from here."""
    if shape.device != "cpu" or shape.interface is None or (shape.nodes > 1 and GLOO_INTERFACE in environment):
        return {}
    return {GLOO_INTERFACE: shape.interface}

"""What `run.accelerator` means: kind, devices and hosts, and which number formats the hardware has. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

from sdjob.core.errors import UsageError
from sdjob.spec.nvidia import GPUS, IN_THE_CLOUDS, NAMES, WITHOUT_BF16
from sdjob.spec.problems import listed, nearest_name
from sdjob.spec.tpu import GENERATIONS, Generation, num_chips

Kind = Literal["cpu", "nvidia", "tpu"]
KnownPrecision = Literal["fp32", "bf16", "fp16"]
SPELLINGS = "cpu[:N], nvidia-NAME[:per node], tpu-GEN:TOPOLOGY[@Nt]"
MOST_CPU_PROCESSES = 256
MOST_GPUS_PER_NODE = 16


@dataclass(frozen=True)
class Accelerator:
    """The hardware of one node, or of one TPU slice."""

    kind: Kind
    name: str | None
    """The GPU's or the TPU generation's name; None where a GPU is not named, and for CPUs."""
    devices_per_node: int
    """Processes of a CPU job, GPUs of a node, devices of one VM of a slice."""
    hosts: int = 1
    """VMs of one TPU slice; 1 for the others, whose nodes `run.nodes` counts."""
    topology: str | None = None
    chips_per_vm: int = 0

    @property
    def devices(self) -> int:
        """Of one node or one whole slice."""
        return self.devices_per_node * self.hosts

    @property
    def has_bf16(self) -> bool:
        return self.name not in WITHOUT_BF16

    @property
    def device_memory_gib(self) -> float | None:
        """Of one device; None where it is not named, and for CPUs."""
        if self.kind == "tpu":
            generation = GENERATIONS[self.name or ""]
            return generation.memory_gib / generation.devices_per_chip
        return GPUS[self.name].memory_gib if self.name else None

    @property
    def device_peak_flops(self) -> float | None:
        """Of one device, a second: in bf16, in fp16 where a GPU has no bf16; None where no source tells."""
        if self.kind == "tpu":
            generation = GENERATIONS[self.name or ""]
            return generation.peak_tflops * 1e12 / generation.devices_per_chip
        peak_tflops = GPUS[self.name].peak_tflops if self.name else None
        return peak_tflops * 1e12 if peak_tflops else None


def parse_accelerator(text: str | None) -> Accelerator:
    """`nvidia-l4:4` as an Accelerator, absent as one CPU process; UsageError where it is misspelled or does not exist.

    `nvidia[:N]` without a name is some GPU of the machine at hand.
    """
    family, _, rest = (text or "cpu").partition("-")
    match family.partition(":")[0]:
        case "cpu" if not rest:
            return Accelerator("cpu", None, count_of(family, most=MOST_CPU_PROCESSES))
        case "nvidia":
            return gpu(text or "")
        case "tpu":
            return tpu(rest)
        case _:
            raise UsageError(f"'{text}' is no accelerator; allowed: {SPELLINGS}")


def count_of(text: str, *, most: int) -> int:
    """The 4 of `cpu:4`; 1 where there is none."""
    _, colon, count = text.partition(":")
    if not colon:
        return 1
    if re.fullmatch(r"[1-9][0-9]{0,5}", count) and int(count) <= most:
        return int(count)
    raise UsageError(f"'{text}': after the colon stands how many, from 1 to {most}")


def gpu(text: str) -> Accelerator:
    count = count_of(text, most=MOST_GPUS_PER_NODE)
    name = text.partition(":")[0].removeprefix("nvidia").removeprefix("-")
    if text.startswith("nvidia-") and name not in NAMES:
        near = nearest_name(name, among=NAMES)
        hint = f"; did you mean 'nvidia-{near}'?" if near else ""
        raise UsageError(
            f"'{name}' is no NVIDIA accelerator that sdjob knows; allowed: {IN_THE_CLOUDS}, other names of NVIDIA's, "
            f"or leave run.accelerator out to use what the machine has{hint}"
        )
    return Accelerator("nvidia", name or None, count)


def tpu(text: str) -> Accelerator:
    name, _, shape = text.partition(":")
    if name not in GENERATIONS:
        raise UsageError(f"'{name}' is no TPU generation; {listed(GENERATIONS)}; as in tpu-v5e:2x2")
    generation = GENERATIONS[name]
    topology, _, machine = shape.partition("@")
    if topology not in generation.shapes:
        raise UsageError(shape_unknown(generation, topology=topology))
    chips = chips_per_vm(generation, topology=topology, machine=machine)
    hosts = num_chips(topology) // chips
    return Accelerator("tpu", name, chips * generation.devices_per_chip, hosts, topology, chips)


def shape_unknown(generation: Generation, *, topology: str) -> str:
    shapes = list(generation.shapes)
    many = ", ".join(shapes[:8]) + (" and so on" if len(shapes) > 8 else "")
    near = nearest_name(topology, among=shapes)
    hint = f"; did you mean 'tpu-{generation.name}:{near}'?" if near else ""
    what = f"no TPU {generation.name} slice has the topology '{topology}'" if topology else "a TPU needs its topology"
    return f"{what}; allowed: {many}{hint}"


def chips_per_vm(generation: Generation, *, topology: str, machine: str) -> int:
    """Of the machine type that the slice is made of, `@8t`; asked for only where a topology comes in two kinds."""
    choices = generation.shapes[topology]
    if not machine:
        if len(choices) == 1:
            return choices[0]
        spellings = " or ".join(f"'tpu-{generation.name}:{topology}@{chips}t'" for chips in choices)
        raise UsageError(f"{topology} is ambiguous: one VM of {choices[0]} chips or several of {choices[1]}; write {spellings}")
    if machine not in {f"{chips}t" for chips in choices}:
        allowed = ", ".join(f"@{chips}t" for chips in choices)
        raise UsageError(f"no VM of TPU {generation.name} {topology} is '@{machine}'; allowed: {allowed}")
    return int(machine.removesuffix("t"))


def num_devices(accelerator: Accelerator, *, nodes: int, slices: int) -> int:
    """Of the whole job."""
    return accelerator.devices * (slices if accelerator.kind == "tpu" else nodes)


def num_machines(accelerator: Accelerator, *, nodes: int, slices: int) -> int:
    """Of the whole job: each of them runs an `sdjob run` of its own."""
    return accelerator.hosts * slices if accelerator.kind == "tpu" else nodes


def resolve_precision(precision: Literal["auto", "fp32", "bf16", "fp16"], *, accelerator: Accelerator) -> KnownPrecision:
    if precision != "auto":
        return precision
    if accelerator.kind == "cpu":
        return "fp32"
    return "bf16" if accelerator.has_bf16 else "fp16"


def resolve_deterministic(deterministic: Literal["auto"] | bool, *, accelerator: Accelerator) -> bool:
    """CUDA's deterministic kernels cost speed, so there it is asked for by name."""
    return accelerator.kind != "nvidia" if deterministic == "auto" else deterministic

"""What a pod asks for: devices, cores, memory, disk. Pure."""

from dataclasses import dataclass

from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import KubernetesSpec

TMP_GIB = 4
# Cores for a device. The smallest machines with a T4, L4 or A10G have 4, of which a node keeps some for itself
# (3920m are left on EKS's, https://karpenter.sh/docs/reference/instance-types/); TPU machines have 24 and more a chip.
CPUS = {"cpu": 2, "nvidia": 3, "tpu": 8}
# The parent hashes and uploads a copy of what is trained: small for a LoRA; 860 million weights of SD 1.5's UNet, two moments
# and an average, of 4 bytes each, are 13 GiB for full fine-tuning, beside the model itself while it is read.
MEMORY_GIB = {"lora": 8, "full": 24}
DEVICE_MEMORY_GIB = 2
# Model, pictures, caches, and for full fine-tuning three times the state of SDXL's UNet (31 GiB).
SCRATCH_GIB = {"lora": 30, "full": 110}
DEVICE_RESOURCE = {"cpu": None, "nvidia": "nvidia.com/gpu", "tpu": "google.com/tpu"}


@dataclass(frozen=True)
class Needs:
    """Of one pod."""

    cpus: float
    memory_gib: int
    shm_gib: int | None
    scratch_gib: int
    device: str | None
    """The resource that the device plugin offers."""
    devices: int


def needs(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator) -> Needs:
    device = DEVICE_RESOURCE[accelerator.kind]
    devices = accelerator.chips_per_vm if accelerator.kind == "tpu" else accelerator.devices_per_node
    shm_gib = cluster.shm_gib or (devices if device else None)
    return Needs(
        cpus=cluster.cpus or CPUS[accelerator.kind] * devices,
        memory_gib=cluster.memory_gib or MEMORY_GIB[job.train.method] + DEVICE_MEMORY_GIB * devices + (shm_gib or 0),
        shm_gib=shm_gib,
        scratch_gib=cluster.scratch_gib or SCRATCH_GIB[job.train.method],
        device=device,
        devices=devices,
    )


def requirements(need: Needs, *, on_node_disk_gib: int) -> dict[str, dict[str, str]]:
    """Requests and limits; equal but for cores, whose limit would only slow down what nobody else uses."""
    both = {"memory": f"{need.memory_gib}Gi", "ephemeral-storage": f"{on_node_disk_gib}Gi"}
    if need.device:
        both[need.device] = str(need.devices)
    return {"requests": {"cpu": quantity(need.cpus), **both}, "limits": both}


def quantity(cores: float) -> str:
    return str(int(cores)) if cores == int(cores) else f"{round(cores * 1000)}m"

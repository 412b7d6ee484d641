"""What each cloud calls an NVIDIA accelerator, and the machines that have it: by GPUs of one machine.

GKE    https://cloud.google.com/compute/docs/gpus (machine types; the accelerator's name is the node's label too, as in
       https://cloud.google.com/kubernetes-engine/docs/how-to/gpus)
EKS    https://karpenter.sh/docs/reference/instance-types/ (2026-08: instance-gpu-name, instance-gpu-memory, instance-gpu-count)
AKS    https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated
"""

from dataclasses import dataclass, field

from sdjob.core.errors import UsageError
from sdjob.spec.nvidia import SAME

Machines = dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class CloudGpu:
    label: str
    """GKE: cloud.google.com/gke-accelerator; EKS: karpenter.k8s.aws/instance-gpu-name; AKS: none."""
    machines: Machines
    """GPUs of a machine to the machine types that have so many, smallest first."""
    memory_mib: int | None = None
    """EKS: karpenter.k8s.aws/instance-gpu-memory, where the name alone is two products."""

    @property
    def most_per_node(self) -> int:
        return max(self.machines)

    def machines_with(self, count: int) -> list[str]:
        """Every machine type with at least so many GPUs."""
        return [machine for gpus, machines in sorted(self.machines.items()) if gpus >= count for machine in machines]


@dataclass(frozen=True)
class Cloud:
    title: str
    gpus: dict[str, CloudGpu] = field(default_factory=dict[str, CloudGpu])

    def gpu(self, name: str, *, count: int) -> CloudGpu:
        """UsageError where the cloud does not have it, or no machine has so many."""
        found = self.gpus.get(SAME.get(name, name))
        if found is None:
            having = ", ".join(f"nvidia-{known}" for known in self.gpus)
            raise UsageError(f"{self.title} has no nvidia-{name}; it has {having}")
        if count > found.most_per_node:
            raise UsageError(f"{self.title} has at most {found.most_per_node} nvidia-{name} in one machine; run.nodes takes more")
        return found


def family(prefix: str, sizes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{size}" for size in sizes.split())


GKE = Cloud(
    "GKE",
    {
        "t4": CloudGpu("nvidia-tesla-t4", {1: ("n1-standard-4",), 2: ("n1-standard-8",), 4: ("n1-standard-16",)}),
        "v100": CloudGpu(
            "nvidia-tesla-v100",
            {1: ("n1-standard-4",), 2: ("n1-standard-8",), 4: ("n1-standard-16",), 8: ("n1-standard-32",)},
        ),
        "p100": CloudGpu("nvidia-tesla-p100", {1: ("n1-standard-4",), 2: ("n1-standard-8",), 4: ("n1-standard-16",)}),
        "p4": CloudGpu("nvidia-tesla-p4", {1: ("n1-standard-4",), 2: ("n1-standard-8",), 4: ("n1-standard-16",)}),
        "l4": CloudGpu(
            "nvidia-l4", {1: ("g2-standard-4",), 2: ("g2-standard-24",), 4: ("g2-standard-48",), 8: ("g2-standard-96",)}
        ),
        "rtx-pro-6000": CloudGpu(
            "nvidia-rtx-pro-6000",
            {1: ("g4-standard-48",), 2: ("g4-standard-96",), 4: ("g4-standard-192",), 8: ("g4-standard-384",)},
        ),
        "a100": CloudGpu(
            "nvidia-tesla-a100",
            {
                1: ("a2-highgpu-1g",),
                2: ("a2-highgpu-2g",),
                4: ("a2-highgpu-4g",),
                8: ("a2-highgpu-8g",),
                16: ("a2-megagpu-16g",),
            },
        ),
        "a100-80gb": CloudGpu(
            "nvidia-a100-80gb",
            {1: ("a2-ultragpu-1g",), 2: ("a2-ultragpu-2g",), 4: ("a2-ultragpu-4g",), 8: ("a2-ultragpu-8g",)},
        ),
        # Fewer than 8 are to be had as spot or flex-start only: https://cloud.google.com/ai-hypercomputer/docs/gpu
        "h100-80gb": CloudGpu(
            "nvidia-h100-80gb",
            {1: ("a3-highgpu-1g",), 2: ("a3-highgpu-2g",), 4: ("a3-highgpu-4g",), 8: ("a3-highgpu-8g",)},
        ),
        "h100-mega-80gb": CloudGpu("nvidia-h100-mega-80gb", {8: ("a3-megagpu-8g",)}),
        "h200-141gb": CloudGpu("nvidia-h200-141gb", {8: ("a3-ultragpu-8g",)}),
        "b200": CloudGpu("nvidia-b200", {8: ("a4-highgpu-8g",)}),
        "gb200": CloudGpu("nvidia-gb200", {4: ("a4x-highgpu-4g",)}),
        "gb300": CloudGpu("nvidia-gb300", {4: ("a4x-maxgpu-4g-metal",)}),
    },
)

ONE_OF_FOUR = "xlarge 2xlarge 4xlarge 8xlarge 16xlarge"
EKS = Cloud(
    "EKS",
    {
        "t4": CloudGpu("t4", {1: family("g4dn", ONE_OF_FOUR), 4: family("g4dn", "12xlarge"), 8: family("g4dn", "metal")}),
        "a10g": CloudGpu(
            "a10g", {1: family("g5", ONE_OF_FOUR), 4: family("g5", "12xlarge 24xlarge"), 8: family("g5", "48xlarge")}
        ),
        "l4": CloudGpu(
            "l4",
            {1: family("g6", ONE_OF_FOUR), 4: family("g6", "12xlarge 24xlarge"), 8: family("g6", "48xlarge")},
        ),
        "l40s": CloudGpu(
            "l40s", {1: family("g6e", ONE_OF_FOUR), 4: family("g6e", "12xlarge 24xlarge"), 8: family("g6e", "48xlarge")}
        ),
        "rtx-pro-4500": CloudGpu(
            "rtx-pro-4500",
            {
                1: family("g7", "2xlarge 4xlarge 8xlarge"),
                2: family("g7", "12xlarge"),
                4: family("g7", "24xlarge"),
                8: family("g7", "48xlarge"),
            },
        ),
        "rtx-pro-6000": CloudGpu(
            "rtx-pro-server-6000",
            {
                1: family("g7e", "2xlarge 4xlarge 8xlarge"),
                2: family("g7e", "12xlarge"),
                4: family("g7e", "24xlarge"),
                8: family("g7e", "48xlarge"),
            },
        ),
        "v100": CloudGpu("v100", {8: family("p3dn", "24xlarge")}),
        "a100": CloudGpu("a100", {8: family("p4d", "24xlarge")}, memory_mib=40960),
        "a100-80gb": CloudGpu("a100", {8: family("p4de", "24xlarge")}, memory_mib=81920),
        "h100-80gb": CloudGpu("h100", {1: family("p5", "4xlarge"), 8: family("p5", "48xlarge")}),
        "h200-141gb": CloudGpu("h200", {8: (*family("p5e", "48xlarge"), *family("p5en", "48xlarge"))}),
        "b200": CloudGpu("b200", {8: family("p6-b200", "48xlarge")}),
        "b300": CloudGpu("b300", {8: family("p6-b300", "48xlarge")}),
    },
)

AKS = Cloud(
    "AKS",
    {
        "t4": CloudGpu(
            "",
            {
                1: ("Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3", "Standard_NC16as_T4_v3"),
                4: ("Standard_NC64as_T4_v3",),
            },
        ),
        "a10": CloudGpu("", {1: ("Standard_NV36ads_A10_v5",), 2: ("Standard_NV72ads_A10_v5",)}),
        "a100": CloudGpu("", {8: ("Standard_ND96asr_v4",)}),
        "a100-80gb": CloudGpu(
            "",
            {
                1: ("Standard_NC24ads_A100_v4",),
                2: ("Standard_NC48ads_A100_v4",),
                4: ("Standard_NC96ads_A100_v4",),
                8: ("Standard_ND96amsr_A100_v4",),
            },
        ),
        "h100-80gb": CloudGpu(
            "",
            {1: ("Standard_NC40ads_H100_v5",), 2: ("Standard_NC80adis_H100_v5",), 8: ("Standard_ND96isr_H100_v5",)},
        ),
        "h200-141gb": CloudGpu("", {8: ("Standard_ND96isr_H200_v5",)}),
    },
)

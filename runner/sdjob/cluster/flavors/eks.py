"""Amazon EKS, with Karpenter or with managed node groups.

Karpenter: https://karpenter.sh/docs/concepts/scheduling/#well-known-labels
Managed groups: https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html (eks.amazonaws.com/capacityType)
"""

from sdjob.cluster.flavors.placement import KEPT_BY_AUTOSCALER, KEPT_BY_KARPENTER, Placement, device_tolerations
from sdjob.spec.clouds import EKS
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec


def karpenter(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    selector: dict[str, str] = {}
    if accelerator.kind == "nvidia" and accelerator.name:
        gpu = EKS.gpu(accelerator.name, count=accelerator.devices_per_node)
        selector["karpenter.k8s.aws/instance-gpu-name"] = gpu.label
        if gpu.memory_mib:
            selector["karpenter.k8s.aws/instance-gpu-memory"] = str(gpu.memory_mib)
    if job.run.spot:
        selector["karpenter.sh/capacity-type"] = "spot"
    kept = {} if job.run.spot else dict(KEPT_BY_KARPENTER)
    return Placement(selector, tolerations=device_tolerations(accelerator), annotations=kept)


def managed(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    """A group's nodes say their machine type and nothing of their GPUs."""
    machines: list[str] = []
    if accelerator.kind == "nvidia" and accelerator.name:
        count = accelerator.devices_per_node
        machines = EKS.gpu(accelerator.name, count=count).machines_with(count)
    selector = {"eks.amazonaws.com/capacityType": "SPOT"} if job.run.spot else {}
    kept = {} if job.run.spot else dict(KEPT_BY_AUTOSCALER)
    return Placement(selector, instance_types=machines, tolerations=device_tolerations(accelerator), annotations=kept)

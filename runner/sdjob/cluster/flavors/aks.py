"""Azure Kubernetes Service.

Spot: https://learn.microsoft.com/azure/aks/spot-node-pool; GPU pools: https://learn.microsoft.com/azure/aks/use-nvidia-gpu
Workload identity: https://learn.microsoft.com/azure/aks/workload-identity-overview#pod-labels
"""

from sdjob.cluster.flavors.placement import KEPT_BY_AUTOSCALER, Placement, device_tolerations, equals
from sdjob.spec.clouds import AKS
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec

SPOT = "kubernetes.azure.com/scalesetpriority"


def pools(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    machines: list[str] = []
    tolerations = device_tolerations(accelerator)
    if accelerator.kind == "nvidia":
        tolerations.append(equals("sku", "gpu"))  # the taint that Azure's own pages put on GPU pools
        if accelerator.name:
            count = accelerator.devices_per_node
            machines = AKS.gpu(accelerator.name, count=count).machines_with(count)
    if job.run.spot:
        tolerations.append(equals(SPOT, "spot"))
    account = job.run.kubernetes.service_account if job.run.kubernetes else None
    return Placement(
        node_selector={SPOT: "spot"} if job.run.spot else {},
        instance_types=machines,
        tolerations=tolerations,
        annotations={} if job.run.spot else dict(KEPT_BY_AUTOSCALER),
        labels={"azure.workload.identity/use": "true"} if account else {},
    )

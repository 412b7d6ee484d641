"""Any other Kubernetes: nodes are chosen by what they offer, and by run.kubernetes.node_selector."""

from sdjob.cluster.flavors.gke import tpu_selector
from sdjob.cluster.flavors.placement import KEPT_BY_AUTOSCALER, Placement, device_tolerations
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec


def nodes(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    return Placement(
        node_selector=tpu_selector(accelerator) if accelerator.kind == "tpu" else {},
        tolerations=device_tolerations(accelerator),
        annotations={} if job.run.spot else dict(KEPT_BY_AUTOSCALER),
    )

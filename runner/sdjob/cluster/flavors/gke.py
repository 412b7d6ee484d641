"""Google Kubernetes Engine, Standard and Autopilot.

Labels: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus, .../autopilot-gpus, .../tpus
Spot: https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms
"""

from sdjob.cluster.flavors.placement import KEPT_BY_AUTOSCALER, Placement, device_tolerations, equals
from sdjob.spec.clouds import GKE
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.tpu import GENERATIONS

SPOT = "cloud.google.com/gke-spot"
COUNT = "cloud.google.com/gke-accelerator-count"


def standard(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    return placement(job, selector=device_selector(accelerator), accelerator=accelerator)


def autopilot(job: JobSpec, *, accelerator: Accelerator) -> Placement:
    """Autopilot makes the node for the pod, and wants to know how many GPUs it shall have."""
    selector = device_selector(accelerator)
    if accelerator.kind == "nvidia" and accelerator.name:
        selector[COUNT] = str(accelerator.devices_per_node)
    return placement(job, selector=selector, accelerator=accelerator)


def placement(job: JobSpec, *, selector: dict[str, str], accelerator: Accelerator) -> Placement:
    tolerations = device_tolerations(accelerator)
    if not job.run.spot:
        return Placement(selector, tolerations=tolerations, annotations=dict(KEPT_BY_AUTOSCALER))
    return Placement({**selector, SPOT: "true"}, tolerations=[*tolerations, equals(SPOT, "true")])


def device_selector(accelerator: Accelerator) -> dict[str, str]:
    if accelerator.kind == "tpu":
        return tpu_selector(accelerator)
    if accelerator.kind == "nvidia" and accelerator.name:
        label = GKE.gpu(accelerator.name, count=accelerator.devices_per_node).label
        return {"cloud.google.com/gke-accelerator": label}
    return {}


def tpu_selector(accelerator: Accelerator) -> dict[str, str]:
    generation = GENERATIONS[accelerator.name or ""]
    topology = accelerator.topology or ""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": generation.accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    if len(generation.shapes[topology]) > 1:  # one VM of 8 chips and two of 4 have the same two labels
        selector[COUNT] = str(accelerator.chips_per_vm)
    return selector

"""JobSet: a gang of pods that start, stop and start again together. Pure. https://jobset.sigs.k8s.io/"""

from dataclasses import dataclass

from sdjob.cluster.failure import of_gang, of_gang_member
from sdjob.cluster.job import HOUR_S, deadline
from sdjob.cluster.names import JOBSET_VERSION, NODE, SLICE, Manifest
from sdjob.spec.hardware import Accelerator
from sdjob.spec.kubernetes import KubernetesSpec
from sdjob.spec.run import RunSpec

# One child Job to one node pool, which is one TPU slice: https://jobset.sigs.k8s.io/docs/concepts/#exclusive-placement
EXCLUSIVE = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}


@dataclass(frozen=True)
class Gang:
    """Nodes of GPUs or CPUs are one Job of several pods; TPU slices one Job each, with a pod for each of its machines."""

    role: str
    jobs: int
    pods: int
    """Of each Job."""
    annotations: dict[str, str]


def gang_of(run: RunSpec, *, accelerator: Accelerator) -> Gang | None:
    """None where one pod is all."""
    if accelerator.kind == "tpu" and accelerator.hosts * run.slices > 1:
        return Gang(SLICE, jobs=run.slices, pods=accelerator.hosts, annotations=dict(EXCLUSIVE))
    if accelerator.kind != "tpu" and run.nodes > 1:
        return Gang(NODE, jobs=1, pods=run.nodes, annotations={})
    return None


def jobset_manifest(metadata: Manifest, *, gang: Gang, cluster: KubernetesSpec, template: Manifest) -> Manifest:
    annotations = {**metadata.get("annotations", {}), **gang.annotations}
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "ttlSecondsAfterFinished": round(cluster.ttl_hours * HOUR_S),
        "failurePolicy": of_gang(),
        "replicatedJobs": [
            {
                "name": gang.role,
                "replicas": gang.jobs,
                "template": {"metadata": {"labels": metadata["labels"]}, "spec": member(gang, cluster, template)},
            }
        ],
    }
    return {
        "apiVersion": JOBSET_VERSION,
        "kind": "JobSet",
        "metadata": {**metadata, "annotations": annotations},
        "spec": spec,
    }


def member(gang: Gang, cluster: KubernetesSpec, template: Manifest) -> Manifest:
    return {
        "completionMode": "Indexed",
        "parallelism": gang.pods,
        "completions": gang.pods,
        "backoffLimit": 0,
        **deadline(cluster),
        "podFailurePolicy": of_gang_member(),
        "template": template,
    }

"""batch/v1 Job: one pod, made again until the job is done. Pure."""

from sdjob.cluster.failure import RETRIES, of_one_pod
from sdjob.cluster.names import Manifest
from sdjob.spec.kubernetes import KubernetesSpec

HOUR_S = 3600


def job_manifest(metadata: Manifest, *, cluster: KubernetesSpec, template: Manifest) -> Manifest:
    spec = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": RETRIES,
        "podReplacementPolicy": "Failed",  # never two attempts at once
        **deadline(cluster),
        "ttlSecondsAfterFinished": round(cluster.ttl_hours * HOUR_S),
        "podFailurePolicy": of_one_pod(),
        "template": template,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def deadline(cluster: KubernetesSpec) -> Manifest:
    """Only on request: it counts the wait for capacity, starts anew when Kueue suspends, and is final."""
    if cluster.deadline_hours is None:
        return {}
    return {"activeDeadlineSeconds": max(1, round(cluster.deadline_hours * HOUR_S))}

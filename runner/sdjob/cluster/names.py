"""Names that manifests, API calls and people who read `kubectl get` share. Pure."""

from typing import Any

Manifest = dict[str, Any]

CONTAINER = "sdjob"
NODE = "node"  # the replicated job of a gang of GPU or CPU nodes
SLICE = "slice"  # of TPU slices

# Labels and annotations by which sdjob finds what it made.
JOB_LABEL = "sdjob/job"
DIGEST_ANNOTATION = "sdjob/digest"
CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"
# https://jobset.sigs.k8s.io/docs/concepts/
JOBSET_VERSION = "jobset.x-k8s.io/v1alpha2"

JOB_FOLDER = "/etc/sdjob"
JOB_FILE = f"{JOB_FOLDER}/job.yaml"
JOB_KEY = "job.yaml"
SCRATCH = "/scratch"
GANG_PORT = 29500

HASH_LETTERS = 10  # of a hash that ends a name: 40 bits


def selector(name: str) -> str:
    """Of everything that belongs to a job."""
    return f"{JOB_LABEL}={name}"


def labels(name: str) -> dict[str, str]:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/"""
    return {
        "app.kubernetes.io/name": "sdjob",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "sdjob",
        JOB_LABEL: name,
    }


def config_map_name(name: str, *, content_hash: str) -> str:
    return f"{name}-{content_hash[:HASH_LETTERS]}"


def gang_address(name: str, *, role: str = NODE) -> str:
    """The host name of a gang's first pod, as JobSet makes it: <jobset>-<replicated job>-<job>-<pod>.<subdomain>."""
    return f"{name}-{role}-0-0.{name}"

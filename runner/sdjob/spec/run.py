"""`run`: on what machines, for how long, and what a cluster must know."""

from typing import Literal

from pydantic import Field

from sdjob.spec.part import Part

# Of a 30 s notice a pod on GKE spot gets about 15: https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms
GKE_SPOT_NOTICE_S = 15.0
# EC2 gives 120 s, of which the pod's grace period takes 90: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
EKS_NOTICE_S = 90.0
# AKS gives 30 s, and it is Kubernetes' own default: 5 are kept for what comes before the signal.
OTHER_NOTICE_S = 25.0
# `docker stop` and `podman stop` kill after 10 s.
LOCAL_NOTICE_S = 10.0


class KubernetesSpec(Part):
    """What the manifests for a cluster need to know beyond the accelerator."""

    flavor: Literal["gke", "eks", "aks", "generic"] = "generic"
    """Whose cluster it is: decides labels, tolerations and the spot notice."""
    namespace: str = Field(default="default", min_length=1, max_length=63)
    """The namespace of all objects."""
    service_account: str | None = None
    """The service account that carries the identity in the cloud."""
    queue: str | None = None
    """The Kueue queue that admits the job."""
    image: str | None = None
    """The container image, best by digest; absent: the image of this version."""
    metrics: bool = False
    """Serve metrics for Prometheus."""
    scratch: str = "emptyDir"
    """emptyDir, ephemeral (a generic ephemeral volume), or the name of a volume claim."""
    scratch_gib: int | None = Field(default=None, ge=1)
    """Size of the scratch volume in GiB; absent: from the plan."""
    deadline_hours: float | None = Field(default=None, gt=0)
    """A hard limit that counts waiting for capacity too; `run.max_hours` is usually what is wanted."""
    hub_token_secret: str | None = None
    """The Kubernetes secret whose key `token` holds the Hub's token."""
    runtime_class: str | None = None
    """The pod's runtimeClassName."""
    tpu_memlock: bool = False
    """Add SYS_RESOURCE to raise a TPU pod's memlock limit; the namespace must allow it."""


class RunSpec(Part):
    """On what machines the job runs, and for how long."""

    accelerator: str | None = None
    """cpu[:N], nvidia-NAME[:per node] or tpu-GEN:TOPOLOGY[@Nt]; absent: what this machine has."""
    nodes: int = Field(default=1, ge=1)
    """GPU nodes."""
    slices: int = Field(default=1, ge=1)
    """TPU slices."""
    spot: bool = False
    """Ask for machines that may be taken away at short notice."""
    notice_s: float | None = Field(default=None, gt=0)
    """Seconds between a stop request and the kill; absent: 15 on GKE spot, 90 on EKS, 25 on AKS and elsewhere, 10 locally."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours of running over all attempts, counted in the ledger; then the job ends with exit 79."""
    scratch: str | None = None
    """A folder for what need not be kept; absent: SDJOB_SCRATCH, else a folder under TMPDIR."""
    kubernetes: KubernetesSpec | None = None
    """What the manifests for a cluster need to know."""
    workers: int = Field(default=2, ge=0, le=256)
    """Threads that decode pictures; 0 decodes in the training thread itself."""


def notice_s(run: RunSpec) -> float:
    """Seconds between a stop request and the kill, where the job does not say."""
    if run.notice_s is not None:
        return run.notice_s
    if run.kubernetes is None:
        return LOCAL_NOTICE_S
    if run.kubernetes.flavor == "eks":
        return EKS_NOTICE_S
    return GKE_SPOT_NOTICE_S if run.kubernetes.flavor == "gke" and run.spot else OTHER_NOTICE_S

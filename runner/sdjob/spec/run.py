"""`run`: on what machines, for how long, and what a cluster must know."""

import math

from pydantic import Field

from sdjob.spec.kubernetes import KubernetesSpec
from sdjob.spec.part import Part

# Of a 30 s notice a pod on GKE spot gets about 15: https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms
GKE_SPOT_NOTICE_S = 15.0
# EC2 gives 120 s, of which the pod's grace period takes 90: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
EKS_NOTICE_S = 90.0
# AKS gives 30 s, and it is Kubernetes' own default: 5 are kept for what comes before the signal.
OTHER_NOTICE_S = 25.0
# `docker stop` and `podman stop` kill after 10 s.
LOCAL_NOTICE_S = 10.0

# The whole grace of a spot pod. GKE: https://cloud.google.com/kubernetes-engine/docs/how-to/autopilot-spot-pods ("up to 25")
AUTOPILOT_SPOT_GRACE_S = 25
# AKS: https://learn.microsoft.com/azure/aks/spot-node-pool (30 s)
SPOT_GRACE_S = {"gke": 25, "gke-autopilot": 25, "eks": 90, "eks-managed": 90, "aks": 30}
LAST_WORDS_S = 5  # between the end of the notice and the kill: the exit code and the ledger's last line


class RunSpec(Part):
    """On what machines the job runs, and for how long."""

    accelerator: str | None = None
    """cpu[:N], nvidia-NAME[:per node] or tpu-GEN:TOPOLOGY[@Nt]; absent: what this machine has."""
    nodes: int = Field(default=1, ge=1)
    """Machines of GPUs, or of CPUs: each runs `sdjob run`, and they train as one."""
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
    cache: str | None = None
    """A place where jobs share what their frozen encoders made, perhaps another run's checkpoint.to; absent: checkpoint.to."""
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
    if run.kubernetes.flavor.startswith("eks"):
        return EKS_NOTICE_S
    return GKE_SPOT_NOTICE_S if run.kubernetes.flavor.startswith("gke") and run.spot else OTHER_NOTICE_S


def grace_s(run: RunSpec) -> int:
    """A pod's terminationGracePeriodSeconds: what the cloud gives on spot, and in any case more than the notice."""
    given = SPOT_GRACE_S.get(run.kubernetes.flavor if run.kubernetes else "generic") if run.spot else None
    if given and (run.notice_s is None or run.notice_s <= given - LAST_WORDS_S):
        return given
    return math.ceil(notice_s(run)) + LAST_WORDS_S

"""Why a pod does not run yet, and the one next step. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdjob.cluster.names import Manifest
from sdjob.cluster.objects import condition, container_state, text


@dataclass(frozen=True)
class Cause:
    kind: str
    why: str
    """A clause, with the cluster's own words."""
    next_step: str


WAIT = "Wait; `sdjob status --watch` says when it goes on."
QUOTA = re.compile(r"quota|QUOTA_EXCEEDED|LimitExceeded|VcpuLimitExceeded", re.IGNORECASE)
STOCKOUT = re.compile(
    r"out\.of\.resources|stockout|RESOURCE_POOL_EXHAUSTED|InsufficientInstanceCapacity|insufficient capacity|SkuNotAvailable",
    re.IGNORECASE,
)
PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
# Reasons of events, by who writes them: cluster-autoscaler and GKE; Karpenter.
COMING = {"TriggeredScaleUp", "Nominated"}
NO_POOL = {"NotTriggerScaleUp"}
FAILED = {"FailedScaleUp", "FailedScheduling", "InsufficientCapacityError"}
MOUNTS = {"FailedMount", "FailedAttachVolume", "FailedBinding", "ProvisioningFailed"}


def pending_cause(pod: Manifest, *, events: Sequence[Manifest]) -> Cause:
    """`events`: of the pod, oldest first."""
    if condition(pod, "PodScheduled") is not None:
        return starting(pod, events=events)
    return unscheduled(pod, events=events)


def unscheduled(pod: Manifest, *, events: Sequence[Manifest]) -> Cause:
    """What a machine that is being made says counts for more than that there is none yet."""
    said = [(text(event, "reason"), text(event, "message")) for event in events]
    for reason, message in reversed(said):
        if reason in COMING:
            return Cause("scaling up", f"a machine is being made: {message}", WAIT)
        if QUOTA.search(message):
            return Cause("quota", f"the cloud's quota is used up: {message}", "Ask for more quota, or take another region.")
        if STOCKOUT.search(message):
            return Cause("capacity", f"the cloud has none left here: {message}", f"{WAIT} Or try another zone or accelerator.")
    message = text(condition(pod, "PodScheduled", status="False") or {}, "message")
    return by_scheduler(message, no_pool=any(reason in NO_POOL for reason, _ in said))


def by_scheduler(message: str, *, no_pool: bool) -> Cause:
    """The scheduler's sentence: "0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint ..."."""
    selects = "node affinity" in message or "node selector" in message or "nodeSelector" in message
    if "untolerated taint" in message and not selects:
        return Cause("taint", message, "Add the taint to run.kubernetes.tolerations.")
    if "volume" in message.lower() or "persistentvolumeclaim" in message.lower():
        return Cause("volume", message, "Look at the claim: `kubectl describe pvc`.")
    if selects or no_pool:
        return Cause(
            "no such node pool", message or "no node pool has such machines", "Make a node pool for run.accelerator; see k8s/."
        )
    if "Insufficient" in message:
        return Cause("full", message, "Wait for room, ask for less (run.kubernetes.cpus, memory_gib), or enlarge the node pool.")
    if message:
        return Cause("unschedulable", message, "Look at `kubectl describe pod`.")
    return Cause("new", "the scheduler has not looked at it yet", WAIT)


def starting(pod: Manifest, *, events: Sequence[Manifest]) -> Cause:
    waiting = container_state(pod, "waiting")
    reason, message = text(waiting, "reason"), text(waiting, "message")
    if reason in PULLING:
        said = [text(event, "message") for event in events if event.get("reason") == "Failed"]
        words = max([message, *said], key=len)
        return Cause("image", f"the image cannot be pulled: {words}", "Correct run.kubernetes.image, or image_pull_secrets.")
    if reason == "CreateContainerConfigError":
        return Cause("secret", message, "Make the Secret or ConfigMap that is missing in this namespace.")
    for event in reversed(events):
        if event.get("reason") in MOUNTS:
            return Cause("volume", text(event, "message"), "Look at the volume: `kubectl describe pod`.")
    if reason in {"CreateContainerError", "RunContainerError"}:
        return Cause("container", f"{reason}: {message}", "Look at `kubectl describe pod`; the image may be none of sdjob's.")
    return Cause("starting", "its container is being made, and the image pulled", WAIT)


ADMISSION = (
    (
        re.compile(r"PodSecurity"),
        "Pod Security",
        "Take out what the namespace's standard forbids, or label the namespace otherwise.",
    ),
    (
        re.compile(r"serviceaccount .* not found|error looking up service account"),
        "service account",
        "Make the service account; see k8s/.",
    ),
    (re.compile(r"exceeded quota"), "namespace quota", "Ask for less, or for a larger ResourceQuota."),
)


def admission_cause(events: Sequence[Manifest]) -> Cause | None:
    """Why a Job has no pod at all; None where nobody says."""
    for event in reversed(events):
        if event.get("reason") == "FailedCreate":
            message = text(event, "message")
            for pattern, kind, step in ADMISSION:
                if pattern.search(message):
                    return Cause(kind, message, step)
            return Cause("admission", message, "Look at `kubectl describe job`.")
    return None


def queue_cause(entry: Manifest | None, *, queue: str) -> Cause:
    """Of a job that Kueue holds back; `entry` is its Workload."""
    if entry is None:
        return Cause(
            "queue", f"nothing says that queue {queue} has seen it", "Is Kueue installed, and is there such a LocalQueue?"
        )
    for kind, status in (("Evicted", "True"), ("QuotaReserved", "False"), ("Admitted", "False")):
        said = text(condition(entry, kind, status=status) or {}, "message")
        if said:
            return Cause("queue", f"it waits in queue {queue}: {said}", WAIT)
    return Cause("queue", f"it waits in queue {queue}", WAIT)

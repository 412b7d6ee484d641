"""What a cluster can give: its accelerators, its spot machines, its sizes."""

from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.spec.clouds import AKS, EKS, GKE, Cloud
from sdjob.spec.flavor import Flavor
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.run import AUTOPILOT_SPOT_GRACE_S, grace_s
from sdjob.spec.sense.machines import ACCELERATOR, known_accelerator

CLOUDS: dict[Flavor, Cloud | None] = {
    "gke": GKE,
    "gke-autopilot": GKE,
    "eks": EKS,
    "eks-managed": EKS,
    "aks": AKS,
    "generic": None,
}
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"


def accelerators(job: JobSpec) -> Iterator[Finding]:
    cluster, named = job.run.kubernetes, known_accelerator(job)
    if cluster is None:
        return
    on_tpu = named is not None and named.kind == "tpu"
    if cluster.tpu_memlock and not on_tpu:
        yield Finding(at("run.kubernetes.tpu_memlock"), "is for TPUs, and run.accelerator names none", reads=(ACCELERATOR,))
    if on_tpu and not cluster.flavor.startswith("gke") and cluster.flavor != "generic":
        what, allowed = f"{cluster.flavor} has no TPUs", "allowed: gke, gke-autopilot, generic"
        yield Finding(at("run.kubernetes.flavor"), what, allowed, reads=(ACCELERATOR,))
    cloud = CLOUDS[cluster.flavor]
    if cloud and named and named.kind == "nvidia" and named.name:
        try:
            cloud.gpu(named.name, count=named.devices_per_node)
        except UsageError as error:
            yield Finding(ACCELERATOR, str(error), reads=(at("run.kubernetes.flavor"),))


def slices(job: JobSpec) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice: slices of several machines alone."""
    named = known_accelerator(job)
    if named and named.kind == "tpu" and job.run.slices > 1 and named.hosts == 1:
        what = f"joins slices of several machines, and {named.topology} is one machine"
        yield Finding(at("run.slices"), what, "take a larger topology", reads=(ACCELERATOR,))


def gang_names(job: JobSpec) -> Iterator[Finding]:
    """https://jobset.sigs.k8s.io/docs/troubleshooting/: a gang's host names begin with the job's, and a host's with a letter."""
    named = known_accelerator(job)
    gang = job.run.nodes > 1 or (named is not None and named.kind == "tpu" and named.hosts * job.run.slices > 1)
    if job.run.kubernetes and gang and job.name[:1].isdigit():
        what = f"'{job.name}' begins with a digit, and the host names of a gang are made of it"
        yield Finding(at("name"), what, "begin with a letter", reads=(ACCELERATOR, at("run.nodes")))


def spot(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    if cluster is None or not job.run.spot:
        return
    for name in (SAFE_TO_EVICT, DO_NOT_DISRUPT):
        if name in cluster.annotations:
            what = f"{name} holds no spot machine back, and Autopilot refuses such a pod"
            yield Finding(at("run.kubernetes.annotations"), what, "take it out, or run.spot", reads=(at("run.spot"),))
    if cluster.flavor == "gke-autopilot" and grace_s(job.run) > AUTOPILOT_SPOT_GRACE_S:
        what = f"GKE Autopilot gives a spot pod at most {AUTOPILOT_SPOT_GRACE_S} s"
        yield Finding(at("run.notice_s"), what, "allowed: up to 20", reads=(at("run.spot"), at("run.kubernetes.flavor")))


def sizes(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    if cluster is None:
        return
    if cluster.memory_gib and cluster.shm_gib and cluster.shm_gib >= cluster.memory_gib:
        what = f"shared memory lies in the pod's memory, and memory_gib is {cluster.memory_gib}"
        yield Finding(at("run.kubernetes.shm_gib"), what, "take less, or more memory", reads=(at("run.kubernetes.memory_gib"),))
    if cluster.storage_class and cluster.scratch != "ephemeral":
        what = f"is for an ephemeral scratch volume, and scratch is {cluster.scratch}"
        yield Finding(at("run.kubernetes.storage_class"), what, "set scratch: ephemeral", reads=(at("run.kubernetes.scratch"),))
    if cluster.queue_priority and not cluster.queue:
        what, allowed = "is for a queue of Kueue's, and queue names none", "set run.kubernetes.queue"
        yield Finding(at("run.kubernetes.queue_priority"), what, allowed, reads=(at("run.kubernetes.queue"),))

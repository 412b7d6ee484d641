"""The pod template: what runs, as whom, with what, and on which nodes. Pure.

It passes the Pod Security Standard "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/), with a
read-only root file system beside it, unless the job asks for `tpu_memlock`.
"""

from typing import Any

from sdjob import __version__
from sdjob.cluster.environment import environment
from sdjob.cluster.flavors.placement import Placement
from sdjob.cluster.flavors.table import FLAVORS
from sdjob.cluster.names import CONTAINER, CONTAINER_ANNOTATION, JOB_FILE, Manifest, labels
from sdjob.cluster.resources import Needs, needs, requirements
from sdjob.cluster.volumes import annotations, mounts, on_node_disk_gib, scratch_folder, volumes
from sdjob.core.errors import UsageError
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import METRICS_PORT, KubernetesSpec, TolerationSpec
from sdjob.spec.run import grace_s

IMAGES = {"cpu": "sdjob-cpu", "nvidia": "sdjob-cuda", "tpu": "sdjob-tpu"}
# The TPU runtime's and multislice's: https://cloud.google.com/kubernetes-engine/docs/how-to/tpus#run
TPU_PORTS = {"tpu-runtime": 8471, "megascale": 8080}


def pod_template(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator, config_map: str) -> Manifest:
    placement = FLAVORS[cluster.flavor](job, accelerator=accelerator)
    need = needs(job, cluster=cluster, accelerator=accelerator)
    spec = {
        "restartPolicy": "Never",  # podFailurePolicy wants it
        "terminationGracePeriodSeconds": grace_s(job.run),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **scheduling(cluster, placement=placement),
        "securityContext": pod_security(cluster),
        "containers": [container(job, cluster=cluster, accelerator=accelerator, need=need)],
        "volumes": volumes(job, cluster=cluster, need=need, config_map=config_map),
    }
    return {"metadata": metadata(job, cluster=cluster, placement=placement), "spec": spec}


def metadata(job: JobSpec, *, cluster: KubernetesSpec, placement: Placement) -> Manifest:
    notes = {CONTAINER_ANNOTATION: CONTAINER, **placement.annotations, **annotations(cluster)}
    if cluster.metrics:
        notes |= {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}
    return {
        "labels": {**cluster.labels, **placement.labels, **labels(job.name)},
        "annotations": {**notes, **cluster.annotations},
    }


def scheduling(cluster: KubernetesSpec, *, placement: Placement) -> Manifest:
    """Where the pod may run; only what is asked for."""
    found: dict[str, Any] = {
        "serviceAccountName": cluster.service_account,
        "priorityClassName": cluster.priority_class,
        "runtimeClassName": cluster.runtime_class,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": node_selector(cluster, placement=placement),
        "affinity": affinity(placement),
        "tolerations": [*placement.tolerations, *(toleration(extra) for extra in cluster.tolerations)],
    }
    return {name: value for name, value in found.items() if value}


def node_selector(cluster: KubernetesSpec, *, placement: Placement) -> dict[str, str]:
    for key, value in cluster.node_selector.items():
        if placement.node_selector.get(key, value) != value:
            raise UsageError(
                f"run.accelerator and run.spot select nodes with {key}={placement.node_selector[key]}, not {value}.",
                where=f"run.kubernetes.node_selector.{key}",
                next_step="Take it out, or change run.accelerator.",
            )
    return {**placement.node_selector, **cluster.node_selector}


def affinity(placement: Placement) -> Manifest:
    if not placement.instance_types:
        return {}
    machines = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": placement.instance_types}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [machines]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def toleration(extra: TolerationSpec) -> Manifest:
    return extra.model_dump(exclude_none=True)


def container(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator, need: Needs) -> Manifest:
    found = {
        "name": CONTAINER,
        "image": cluster.image or f"{IMAGES[accelerator.kind]}:{__version__}",
        "command": ["sdjob"],  # sdjob itself is process 1: a shell there would swallow the stop request
        "args": ["run", JOB_FILE],
        "workingDir": scratch_folder(job),
        "env": environment(job, cluster=cluster, accelerator=accelerator),
        "ports": ports(cluster, accelerator=accelerator),
        "resources": requirements(need, on_node_disk_gib=on_node_disk_gib(cluster, need=need)),
        "volumeMounts": mounts(job, cluster=cluster, need=need),
        "securityContext": container_security(cluster),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {name: value for name, value in found.items() if value}


def ports(cluster: KubernetesSpec, *, accelerator: Accelerator) -> list[Manifest]:
    wanted = TPU_PORTS if accelerator.kind == "tpu" else {}
    wanted = wanted | ({"metrics": METRICS_PORT} if cluster.metrics else {})
    return [{"name": name, "containerPort": port} for name, port in wanted.items()]


def pod_security(cluster: KubernetesSpec) -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": cluster.run_as_user,
        "runAsGroup": cluster.run_as_user,
        "fsGroup": cluster.run_as_user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(cluster: KubernetesSpec) -> Manifest:
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if cluster.tpu_memlock:
        capabilities["add"] = ["SYS_RESOURCE"]
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities}

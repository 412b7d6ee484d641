"""The container's environment. Pure; secrets come by reference alone."""

from typing import Any

from sdjob.cluster.jobset import Gang, gang_of
from sdjob.cluster.names import GANG_PORT, gang_address
from sdjob.cluster.volumes import scratch_folder
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import METRICS_PORT, EnvSpec, KubernetesSpec

Variable = dict[str, Any]

# All that libraries would write below a home folder, on the volume that may be written to.
CACHES = {
    "HOME": "home",
    "HF_HOME": "cache/huggingface",
    "XDG_CACHE_HOME": "cache",
    "TRITON_CACHE_DIR": "cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
}
# https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
COMPLETION_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def environment(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator) -> list[Variable]:
    folder = scratch_folder(job)
    found: list[Variable] = [{"name": "SDJOB_SCRATCH", "value": folder}]
    found += [{"name": name, "value": f"{folder}/{below}"} for name, below in CACHES.items()]
    if cluster.metrics:
        found.append({"name": "SDJOB_METRICS_PORT", "value": str(METRICS_PORT)})
    if cluster.hub_token_secret:
        found.append(secret_key("HF_TOKEN", secret=cluster.hub_token_secret, key="token"))
    gang = gang_of(job.run, accelerator=accelerator)
    if gang and gang.jobs == 1:  # over several slices a pod's index is its slice's alone
        found += gang_variables(job, gang=gang)
    return found + [variable(extra) for extra in cluster.env]


def gang_variables(job: JobSpec, *, gang: Gang) -> list[Variable]:
    """Where the first pod is, how many there are, and which this one is. What JAX needs on a TPU slice GKE tells it."""
    return [
        {"name": "SDJOB_GANG_ADDRESS", "value": f"{gang_address(job.name, role=gang.role)}:{GANG_PORT}"},
        {"name": "SDJOB_GANG_NODES", "value": str(gang.pods)},
        {"name": "SDJOB_GANG_NODE", "valueFrom": {"fieldRef": {"fieldPath": COMPLETION_INDEX}}},
    ]


def secret_key(name: str, *, secret: str, key: str) -> Variable:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def variable(extra: EnvSpec) -> Variable:
    if extra.secret:
        return secret_key(extra.name, secret=extra.secret, key=extra.key or "")
    if extra.config_map:
        return {"name": extra.name, "valueFrom": {"configMapKeyRef": {"name": extra.config_map, "key": extra.key}}}
    return {"name": extra.name, "value": extra.value}

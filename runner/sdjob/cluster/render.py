"""A job as Kubernetes objects. Pure: equal jobs give equal objects, and nothing is asked of any cluster."""

import hashlib
import json
from dataclasses import dataclass

from sdjob.cluster.cautions import Caution, cautions
from sdjob.cluster.config_map import config_map
from sdjob.cluster.job import job_manifest
from sdjob.cluster.jobset import gang_of, jobset_manifest
from sdjob.cluster.kueue import queue_labels
from sdjob.cluster.names import DIGEST_ANNOTATION, Manifest, labels
from sdjob.cluster.pod import pod_template
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import KubernetesSpec


@dataclass(frozen=True)
class Rendered:
    config_map: Manifest
    workload: Manifest
    """A Job, or a JobSet where one pod is not all."""
    cautions: list[Caution]

    @property
    def manifests(self) -> list[Manifest]:
        return [self.config_map, self.workload]

    @property
    def digest(self) -> str:
        return self.workload["metadata"]["annotations"][DIGEST_ANNOTATION]


def rendered(job: JobSpec) -> Rendered:
    """UsageError where the job contradicts itself in what only its objects show."""
    cluster = job.run.kubernetes or KubernetesSpec()
    job = job.model_copy(update={"run": job.run.model_copy(update={"kubernetes": cluster})})
    accelerator = parse_accelerator(job.run.accelerator)
    resolved = config_map(job, namespace=cluster.namespace)
    template = pod_template(job, cluster=cluster, accelerator=accelerator, config_map=resolved["metadata"]["name"])
    metadata = {
        "name": job.name,
        "namespace": cluster.namespace,
        "labels": {**cluster.labels, **labels(job.name), **queue_labels(cluster)},
    }
    gang = gang_of(job.run, accelerator=accelerator)
    if gang:
        workload = jobset_manifest(metadata, gang=gang, cluster=cluster, template=template)
    else:
        workload = job_manifest(metadata, cluster=cluster, template=template)
    return Rendered(resolved, signed(workload), cautions(job, cluster=cluster, accelerator=accelerator, gang=gang))


def signed(workload: Manifest) -> Manifest:
    """With the hash of all the rest, by which a job that is submitted again is known."""
    digest = hashlib.sha256(json.dumps(workload, sort_keys=True).encode()).hexdigest()
    metadata = workload["metadata"]
    annotations = {**metadata.get("annotations", {}), DIGEST_ANNOTATION: digest}
    return {**workload, "metadata": {**metadata, "annotations": annotations}}

"""The resolved job as an immutable ConfigMap, named by its content: what runs is what was rendered. Pure."""

import hashlib

from sdjob.cluster.names import JOB_KEY, Manifest, config_map_name, labels
from sdjob.spec.job import JobSpec
from sdjob.spec.load import resolved_yaml


def config_map(job: JobSpec, *, namespace: str) -> Manifest:
    text = resolved_yaml(job)
    name = config_map_name(job.name, content_hash=hashlib.sha256(text.encode()).hexdigest())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(job.name)},
        "immutable": True,
        "data": {JOB_KEY: text},
    }

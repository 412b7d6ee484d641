"""Kueue: the labels by which a queue takes a job in. It suspends the job by itself. https://kueue.sigs.k8s.io/docs/tasks/run/jobs/"""

from sdjob.spec.kubernetes import KubernetesSpec

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def queue_labels(cluster: KubernetesSpec) -> dict[str, str]:
    found = {QUEUE_LABEL: cluster.queue, "kueue.x-k8s.io/priority-class": cluster.queue_priority}
    return {key: value for key, value in found.items() if value}

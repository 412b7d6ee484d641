"""Where objects lie at the API server. Pure."""

from sdjob.cluster.names import JOBSET_VERSION


def namespaced(group: str, kinds: str, *, namespace: str | None, name: str | None = None) -> str:
    """`group` as in apiVersion; without a namespace those of all namespaces."""
    root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    below = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{below}/{kinds}" + (f"/{name}" if name else "")


def jobs(namespace: str | None, name: str | None = None) -> str:
    return namespaced("batch/v1", "jobs", namespace=namespace, name=name)


def jobsets(namespace: str | None, name: str | None = None) -> str:
    return namespaced(JOBSET_VERSION, "jobsets", namespace=namespace, name=name)


def workloads(kind: str, namespace: str | None, name: str | None = None) -> str:
    return jobsets(namespace, name) if kind == "JobSet" else jobs(namespace, name)


def config_maps(namespace: str, name: str | None = None) -> str:
    return namespaced("v1", "configmaps", namespace=namespace, name=name)


def pods(namespace: str, name: str | None = None) -> str:
    return namespaced("v1", "pods", namespace=namespace, name=name)


def events(namespace: str) -> str:
    return namespaced("v1", "events", namespace=namespace)


def queue_entries(namespace: str, version: str) -> str:
    """Kueue's own record of a job."""
    return namespaced(f"kueue.x-k8s.io/{version}", "workloads", namespace=namespace)

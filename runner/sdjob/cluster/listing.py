"""All jobs of a namespace, or of the cluster, as far as their own objects tell."""

from dataclasses import dataclass

from sdjob.cluster import paths
from sdjob.cluster.names import JOB_LABEL, Manifest
from sdjob.cluster.objects import condition, items, label, name_of, part, text
from sdjob.cluster.server import Server

OURS = "app.kubernetes.io/managed-by=sdjob"


@dataclass(frozen=True)
class Line:
    name: str
    namespace: str
    kind: str
    state: str
    created: str


def listing(server: Server, *, everywhere: bool) -> list[Line]:
    """Newest first. A JobSet's own Jobs are part of it."""
    namespace = None if everywhere else server.namespace
    found = [{**one, "kind": "JobSet"} for one in server.list(paths.jobsets(namespace), selector=OURS)]
    jobs = server.list(paths.jobs(namespace), selector=OURS)
    found += [{**one, "kind": "Job"} for one in jobs if label(one, JOB_LABEL) == name_of(one)]
    lines = [
        Line(
            name_of(one),
            text(one, "metadata", "namespace"),
            one["kind"],
            state_of(one),
            text(one, "metadata", "creationTimestamp"),
        )
        for one in found
    ]
    return sorted(lines, key=lambda line: line.created, reverse=True)


def state_of(workload: Manifest) -> str:
    if text(workload, "metadata", "deletionTimestamp"):
        return "stopping"
    if condition(workload, "Complete") or condition(workload, "Completed"):
        return "done"
    if condition(workload, "Failed"):
        return "failed"
    if part(workload, "spec").get("suspend"):
        return "queued"
    status = part(workload, "status")
    ready = [status, *items(workload, "status", "replicatedJobsStatus")]
    return "running" if any(one.get("ready") or one.get("active") for one in ready) else "pending"

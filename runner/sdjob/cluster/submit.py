"""Submitting a job: once, however often it is asked for; and taking it away again."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from sdjob.cluster import paths
from sdjob.cluster.differences import differences, job_differences, shortened
from sdjob.cluster.names import DIGEST_ANNOTATION, JOB_KEY, JOB_LABEL, Manifest
from sdjob.cluster.refusals import ExistsError
from sdjob.cluster.render import Rendered
from sdjob.cluster.server import Server
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, StorageError, UsageError

KINDS = ("Job", "JobSet")
POLL_S = 2.0
SPARE_S = 120.0  # beyond the pods' grace, until the API server has cleared an object away
Outcome = Literal["created", "unchanged", "replaced"]


@dataclass(frozen=True)
class Submitted:
    outcome: Outcome
    workload: Manifest


def submit(result: Rendered, *, server: Server, replace: bool, clock: Clock) -> Submitted:
    """UsageError with the differences where another job has the name, and `replace` was not said."""
    name = result.workload["metadata"]["name"]
    live = find(name, server=server)
    if live is None:
        return Submitted("created", create(result, server=server))
    require_ours(live, name=name)
    if live["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION) == result.digest and not replace:
        return Submitted("unchanged", live)
    if not replace:
        raise changed(result, live=live, server=server)
    take_away(live, server=server, clock=clock)
    return Submitted("replaced", create(result, server=server))


def find(name: str, *, server: Server) -> Manifest | None:
    """The Job or JobSet of this name."""
    for kind in KINDS:
        found = server.get(paths.workloads(kind, server.namespace, name))
        if found is not None:
            return {**found, "kind": kind}
    return None


def require_ours(live: Manifest, *, name: str) -> None:
    if live["metadata"].get("labels", {}).get(JOB_LABEL) != name:
        raise UsageError(
            f"a {live['kind']} of this name is there that sdjob did not make.", where=name, next_step="Take another name."
        )


def create(result: Rendered, *, server: Server) -> Manifest:
    """The job's file first, since the pods need it; then it belongs to the workload, and goes with it."""
    config_map = result.config_map
    path = paths.config_maps(server.namespace)
    with suppress(ExistsError):  # named by its content, and immutable: what is there is the same
        server.create(path, config_map)
    workload = result.workload
    try:
        made = server.create(paths.workloads(workload["kind"], server.namespace), workload)
    except ExistsError:
        # Another submit was faster, or our own first try came through and its answer was lost.
        live = find(workload["metadata"]["name"], server=server)
        if live is None or live["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION) != result.digest:
            raise
        made = live
    owner = {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": workload["metadata"]["name"],
        "uid": made["metadata"]["uid"],
    }
    change: Manifest = {"metadata": {"ownerReferences": [owner]}}
    server.patch(paths.config_maps(server.namespace, config_map["metadata"]["name"]), change)
    return made


def changed(result: Rendered, *, live: Manifest, server: Server) -> UsageError:
    lines = job_differences(result.config_map["data"][JOB_KEY], job_text(live, server=server) or "")
    lines += differences(result.workload["spec"], live.get("spec", {}), path="spec")
    text = "\n  ".join(shortened(lines))
    return UsageError(
        f"another job of this name is in the cluster:\n  {text}\n",
        where=result.workload["metadata"]["name"],
        next_step="Take another name, or --replace to stop that one and start this one; what is committed stands.",
    )


def pod_spec(workload: Manifest) -> Manifest:
    """Of the first of its pods."""
    if workload["kind"] == "JobSet":
        return workload["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return workload["spec"]["template"]["spec"]


def job_text(live: Manifest, *, server: Server) -> str | None:
    """The job file that a workload runs."""
    volumes = pod_spec(live).get("volumes", [])
    name = next((volume["configMap"]["name"] for volume in volumes if volume["name"] == "job"), None)
    found = server.get(paths.config_maps(server.namespace, name)) if name else None
    return found["data"].get(JOB_KEY) if found else None


def cancel(name: str, *, server: Server) -> Manifest:
    """The workload, which is going away. Its pods are asked to stop: they save, commit and end."""
    live = find(name, server=server)
    if live is None:
        raise MissingError(f"there is no such job in namespace {server.namespace}.", where=name, next_step="See `sdjob list`.")
    require_ours(live, name=name)
    server.delete(paths.workloads(live["kind"], server.namespace, name))
    return live


def take_away(live: Manifest, *, server: Server, clock: Clock) -> None:
    """Until its pods have ended: the next one would be fenced by them, or fence them."""
    path = paths.workloads(live["kind"], server.namespace, live["metadata"]["name"])
    server.delete(path)
    until_s = clock.monotonic_s() + pod_spec(live).get("terminationGracePeriodSeconds", 30) + SPARE_S
    while server.get(path) is not None:
        if clock.monotonic_s() > until_s:
            raise StorageError("the old job does not go away.", where=path, next_step="Look at it: `kubectl describe`.")
        clock.sleep(POLL_S)

"""Gathers what the API server and the run's own ledger say of a job."""

from collections.abc import Sequence
from pathlib import Path

from sdjob.cluster import paths
from sdjob.cluster.endings import ending_of
from sdjob.cluster.facts import Facts
from sdjob.cluster.kueue import QUEUE_LABEL
from sdjob.cluster.names import Manifest, selector
from sdjob.cluster.objects import items, label, name_of, text
from sdjob.cluster.server import Server
from sdjob.cluster.submit import find, job_text, require_ours
from sdjob.core.errors import SdjobError, UsageError
from sdjob.core.retry import Backoff
from sdjob.ledger.read import AttemptLedger, read_ledger
from sdjob.spec.job import JobSpec
from sdjob.spec.load import job_from_text
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

KUEUE_VERSIONS = ("v1beta2", "v1beta1")
MOST_PODS = 4  # whose events are asked for: a gang's pods wait for the same thing


def look(name: str, *, server: Server, job: JobSpec | None) -> Facts:
    """`job`: where a file was named; otherwise what the cluster runs."""
    workload = find(name, server=server)
    if workload is not None:
        require_ours(workload, name=name)
    pods = sorted(
        server.list(paths.pods(server.namespace), selector=selector(name)),
        key=lambda pod: text(pod, "metadata", "creationTimestamp"),
    )
    known = job or (job_of(workload, server=server) if workload else None)
    ledgers, note = ledger_of(known)
    return Facts(
        name=name,
        namespace=server.namespace,
        workload=workload,
        pods=pods,
        events=events_about(workload, pods=pods, server=server),
        queue_entry=queue_entry(workload, server=server) if workload else None,
        job=known,
        ledgers=ledgers,
        ledger_note=note,
    )


def job_of(workload: Manifest, *, server: Server) -> JobSpec | None:
    """None too where another version of sdjob wrote what this one cannot read."""
    found = job_text(workload, server=server)
    try:
        return job_from_text(found, source="job.yaml", environment={}) if found else None
    except UsageError:
        return None


def ledger_of(job: JobSpec | None) -> tuple[list[AttemptLedger], str | None]:
    """A ledger that cannot be read from here says nothing about the job."""
    if job is None:
        return [], "the job's file is not in the cluster, or is of another version, so the place of its ledger is not known"
    place = parse_place(job.checkpoint.to, base=Path("/"))
    if place.scheme == "file":
        return [], f"the ledger lies in the pod's own folder {job.checkpoint.to}"
    try:
        return read_ledger(open_store(place), backoff=Backoff(attempts=2)), None
    except SdjobError as error:
        return [], f"the ledger could not be read: {error}"


def events_about(workload: Manifest | None, *, pods: Sequence[Manifest], server: Server) -> dict[str, list[Manifest]]:
    """Of pods that wait; of the workload where it has no pod at all."""
    waiting = [pod for pod in pods if ending_of(pod) is None and text(pod, "status", "phase") != "Running"]
    names = [name_of(pod) for pod in waiting[:MOST_PODS]]
    if not waiting and workload is not None:
        names = [name_of(workload), *(f"{name_of(workload)}-{role}-0" for role in roles(workload))]
    return {name: events_of(name, server=server) for name in names}


def roles(workload: Manifest) -> list[str]:
    return [text(member, "name") for member in items(workload, "spec", "replicatedJobs")]


def events_of(name: str, *, server: Server) -> list[Manifest]:
    found = server.list(paths.events(server.namespace), fields=f"involvedObject.name={name}")
    return sorted(found, key=lambda event: text(event, "lastTimestamp") or text(event, "eventTime"))


def queue_entry(workload: Manifest, *, server: Server) -> Manifest | None:
    if not label(workload, QUEUE_LABEL):
        return None
    uid = text(workload, "metadata", "uid")
    for version in KUEUE_VERSIONS:
        for entry in server.list(paths.queue_entries(server.namespace, version)):
            if any(text(owner, "uid") == uid for owner in items(entry, "metadata", "ownerReferences")):
                return entry
    return None

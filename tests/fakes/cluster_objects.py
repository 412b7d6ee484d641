"""Pods, events and conditions as a cluster makes them."""

from typing import Any

Manifest = dict[str, Any]


def pod(
    name: str = "emoji-abcde",
    *,
    job: str = "emoji",
    phase: str = "Running",
    exit_code: int | None = None,
    reason: str = "Error",
    waiting: tuple[str, str] | None = None,
    disrupted: str | None = None,
    unschedulable: str | None = None,
    message: str = "",
    created: str = "2026-01-01T00:00:00Z",
    index: int | None = None,
) -> Manifest:
    state: Manifest = {"running": {}} if phase == "Running" else {}
    if waiting:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    if exit_code is not None:
        state = {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}
    conditions = [{"type": "PodScheduled", "status": "True"}]
    if unschedulable is not None:
        conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}]
    if disrupted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disrupted})
    annotations = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    return {
        "metadata": {"name": name, "labels": {"sdjob/job": job}, "annotations": annotations, "creationTimestamp": created},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"name": "sdjob", "state": state}] if state else [],
        },
    }


def event(about: str, reason: str, message: str, *, at: str = "2026-01-01T00:00:01Z") -> Manifest:
    return {
        "metadata": {"name": f"{about}.{reason}"},
        "involvedObject": {"name": about},
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


def workload(
    *, condition: str | None = None, reason: str = "", message: str = "", suspend: bool = False, queue: str = ""
) -> Manifest:
    labels = {"sdjob/job": "emoji"} | ({"kueue.x-k8s.io/queue-name": queue} if queue else {})
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": message}] if condition else []
    return {
        "kind": "Job",
        "metadata": {"name": "emoji", "uid": "uid-job", "labels": labels},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions},
    }

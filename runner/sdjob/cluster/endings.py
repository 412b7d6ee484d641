"""How a pod ended: taken away, out of memory, or by its own exit code. Pure.

The order counts. A machine that is taken away kills what has not stopped in time, with 137, which is what running out of memory
looks like too: so the pod's own condition is read before its container.
"""

import json
from dataclasses import dataclass
from typing import Literal

from sdjob.cluster.names import Manifest
from sdjob.cluster.objects import condition, container_state, text
from sdjob.core.errors import SdjobError, StoppedError

Kind = Literal["done", "preempted", "out of memory", "stopped", "failed", "killed", "gone"]
KILLED, TERMINATED = 137, 143

# https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of higher priority took its place",
    "DeletionByTaintManager": "its node was taken away",
    "EvictionByEvictionAPI": "it was evicted, as when a node is drained",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node shut down, or was short of memory or disk",
}
# What the exit codes of the contract mean, as a person asks.
MEANINGS = {
    64: "the job file is wrong",
    65: "the data is unusable",
    66: "a file, place, model, data set or revision does not exist",
    69: "the machine lacks something",
    70: "a fault of sdjob, or no progress over several attempts",
    71: "a peer of the gang was lost",
    74: "storage, network or scratch failed after all retries",
    75: "stopped on request",
    76: "another attempt owns the run now",
    77: "permission denied, or a token is missing",
    78: "the loss is not finite, the checkpoints are damaged, or the store is not honest",
    79: "run.max_hours is used up",
}


@dataclass(frozen=True)
class Ending:
    kind: Kind
    exit_code: int | None
    why: str
    """A clause."""


def ending_of(pod: Manifest) -> Ending | None:
    """None while it has not ended."""
    phase, terminated = text(pod, "status", "phase"), container_state(pod, "terminated")
    if phase == "Succeeded":
        return Ending("done", 0, "everything is done")
    disruption = condition(pod, "DisruptionTarget")
    if disruption is not None and (phase == "Failed" or terminated):
        reason = text(disruption, "reason") or "DisruptionTarget"
        why = DISRUPTIONS.get(reason, "its machine was taken away")
        return Ending("preempted", terminated.get("exitCode"), f"{why} ({reason})")
    if phase != "Failed":
        return None
    if not terminated:
        said = text(pod, "status", "message") or text(pod, "status", "reason")
        return Ending("gone", None, said.rstrip(".") or "nothing is known of its container")
    return by_container(terminated)


def by_container(terminated: Manifest) -> Ending:
    exit_code = int(terminated.get("exitCode", SdjobError.exit_code))
    if terminated.get("reason") == "OOMKilled":
        return Ending("out of memory", exit_code, "its container used more memory than its limit (OOMKilled)")
    if exit_code == StoppedError.exit_code:
        return Ending("stopped", exit_code, MEANINGS[exit_code])
    if exit_code in {KILLED, TERMINATED}:
        return Ending("killed", exit_code, f"it was killed by signal {exit_code - 128}, and nothing says by whom")
    return Ending("failed", exit_code, MEANINGS.get(exit_code, f"it ended with exit code {exit_code}"))


def last_words(pod: Manifest) -> str | None:
    """What sdjob said last: the sentence that it left, or, where it was killed before that, the end of its log."""
    said = text(container_state(pod, "terminated"), "message").strip()
    return said_in(said.splitlines()[-1]) if said.startswith("{") or '\n{"time"' in said else said or None


def said_in(line: str) -> str | None:
    """Of a line of the log as it is written where there is no terminal. The kubelet cuts it anywhere: then it says nothing."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return None

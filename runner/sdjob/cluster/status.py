"""One state, its cause and one next step. Pure: what was gathered goes in, what a person wants to know comes out."""

from dataclasses import dataclass, field
from typing import Literal

from sdjob.cluster.activity import Activity, activity_of
from sdjob.cluster.attempts import AttemptRow, attempt_rows
from sdjob.cluster.endings import Ending, ending_of, last_words
from sdjob.cluster.facts import Facts
from sdjob.cluster.kueue import QUEUE_LABEL
from sdjob.cluster.names import Manifest
from sdjob.cluster.objects import condition, label, name_of, part, text
from sdjob.cluster.pending import WAIT, Cause, admission_cause, pending_cause, queue_cause

State = Literal[
    "queued",
    "pending",
    "running",
    "staging",
    "caching",
    "compiling",
    "training",
    "saving",
    "publishing",
    "done",
    "stopped",
    "failed",
]
FINISHED: frozenset[State] = frozenset({"done", "stopped", "failed"})
AGAIN = "submit it again with --replace."
NEXT_STEPS = {
    64: f"Correct the job file and {AGAIN}",
    65: "Look at `sdjob logs` for the pictures that are meant, and correct the data.",
    66: f"Correct the place, model or revision and {AGAIN}",
    69: f"Ask for another accelerator or for more memory, and {AGAIN}",
    70: f"Look at `sdjob logs`; then {AGAIN}",
    74: f"Look at the bucket and the network; then {AGAIN}",
    76: "Look for another job with the same checkpoint.to: `sdjob list -A`.",
    77: f"Give the pod's identity the right (service_account, hub_token_secret) and {AGAIN}",
    78: "Look at `sdjob logs`: often the learning rate is too high.",
    79: f"Raise run.max_hours and {AGAIN}",
}
MORE_MEMORY = f"Raise run.kubernetes.memory_gib and {AGAIN}"


@dataclass(frozen=True)
class Status:
    name: str
    namespace: str
    state: State
    why: str
    next_step: str | None = None
    exit_code: int | None = None
    activity: Activity | None = None
    attempts: list[AttemptRow] = field(default_factory=list[AttemptRow])
    notes: list[str] = field(default_factory=list[str])


def judge(facts: Facts) -> Status:
    endings = {name_of(pod): ending for pod in facts.pods if (ending := ending_of(pod))}
    rows = attempt_rows(facts.ledgers, endings=endings)
    state, why, step, code = verdict(facts, rows=rows)
    activity = activity_of(facts.ledgers, job=facts.job)
    shown = activity if state not in {"queued", "pending"} else None
    notes = [facts.ledger_note] if facts.ledger_note else []
    return Status(facts.name, facts.namespace, state, why, step, code, shown, rows, notes)


Verdict = tuple[State, str, str | None, int | None]


def verdict(facts: Facts, *, rows: list[AttemptRow]) -> Verdict:
    workload = facts.workload
    if workload is None:
        return without_object(rows)
    if text(workload, "metadata", "deletionTimestamp"):
        return "stopped", "it is being taken away: its pods save and end within their grace", None, None
    if condition(workload, "Complete") or condition(workload, "Completed"):
        return "done", "everything, publish included, is done", None, 0
    failed = condition(workload, "Failed")
    if failed is not None:
        return failure(facts, failed=failed)
    if part(workload, "spec").get("suspend"):
        return suspended(facts, workload=workload)
    return by_pods(facts)


def without_object(rows: list[AttemptRow]) -> Verdict:
    if rows and rows[-1].cause == "done":
        return "done", "everything is done, and its objects have been cleared away", None, 0
    return "stopped", "it is not in the cluster", "Submit it: what is committed stands, and it goes on from there.", None


def failure(facts: Facts, *, failed: Manifest) -> Verdict:
    reason, message = text(failed, "reason"), text(failed, "message")
    if reason == "DeadlineExceeded":
        return (
            "failed",
            "run.kubernetes.deadline_hours is over, waiting included",
            f"Raise it, or use run.max_hours, and {AGAIN}",
            None,
        )
    pod, ending = culprit(facts)
    if ending is None:
        return "failed", f"{reason}: {message}".strip(": "), f"Look at `kubectl describe`; then {AGAIN}", None
    said = last_words(pod) if pod else None
    why = f"{ending.why}" + (", several times" if reason == "BackoffLimitExceeded" else "") + (f": {said}" if said else "")
    return "failed", why, next_after(ending), ending.exit_code


def culprit(facts: Facts) -> tuple[Manifest | None, Ending | None]:
    """The last pod that is guilty of something; of a gang those that lost a peer are not."""
    ended = [(pod, ending) for pod in facts.pods if (ending := ending_of(pod))]
    guilty = [one for one in ended if one[1].kind in {"failed", "out of memory"} and one[1].exit_code != 71]
    return (guilty or ended or [(None, None)])[-1]


def next_after(ending: Ending) -> str:
    if ending.kind == "out of memory":
        return MORE_MEMORY
    return NEXT_STEPS.get(ending.exit_code or -1, f"Look at `sdjob logs`; then {AGAIN}")


def suspended(facts: Facts, *, workload: Manifest) -> Verdict:
    queue = label(workload, QUEUE_LABEL)
    if queue:
        cause = queue_cause(facts.queue_entry, queue=queue)
        return "queued", cause.why, cause.next_step, None
    return "stopped", "somebody has suspended it (spec.suspend)", "Set spec.suspend to false with kubectl to go on.", None


def by_pods(facts: Facts) -> Verdict:
    live = [pod for pod in facts.pods if ending_of(pod) is None]
    waiting = [pod for pod in live if text(pod, "status", "phase") != "Running"]
    if not live:
        cause = cause_without_pod(facts)
        return "pending", cause.why, cause.next_step, None
    if waiting:
        cause = pending_cause(waiting[0], events=facts.events.get(name_of(waiting[0]), []))
        others = f" ({len(waiting)} of {len(live)} pods wait)" if len(live) > 1 else ""
        return "pending", f"{cause.kind}: {cause.why}{others}", cause.next_step, None
    if any(text(pod, "metadata", "deletionTimestamp") for pod in live):
        return "saving", "its machine is being taken away: it saves what it has", WAIT, None
    return running(facts, live=live)


def cause_without_pod(facts: Facts) -> Cause:
    for events in facts.events.values():
        cause = admission_cause(events)
        if cause:
            return cause
    pod, ending = culprit(facts)
    if ending and pod:
        said = f" It said: {words}" if (words := last_words(pod)) and ending.kind == "failed" else ""
        return Cause("between", f"the last attempt ended ({ending.kind}: {ending.why}); the next one is being made.{said}", WAIT)
    return Cause("new", "its first pod is being made", WAIT)


def running(facts: Facts, *, live: list[Manifest]) -> Verdict:
    """What the newest attempt does, where it is one of these pods."""
    if facts.ledger_note:
        return "running", "its pods run", None, None
    activity = activity_of(facts.ledgers, job=facts.job)
    if activity is None or activity.host not in {name_of(pod) for pod in live}:
        return "staging", "its container has started and reads the model and the data", None, None
    return activity.state, activity.why, None, None

"""A state as it is told of pods, events and ledgers that tests make up."""

from fakes.cluster_objects import workload
from sdjob.cluster.facts import Facts
from sdjob.cluster.status import Status, judge
from sdjob.ledger.read import AttemptLedger
from unit.cluster.conftest import NAME
from unit.spec.jobs import job


def facts(*pods: dict, events: tuple = (), ledgers: tuple = (), note: str | None = None, **fields) -> Facts:
    known = fields.pop("job", job())
    named = {"emoji": [one for one in events if one["involvedObject"]["name"] == "emoji"]}
    named |= {
        one["metadata"]["name"]: [e for e in events if e["involvedObject"]["name"] == one["metadata"]["name"]] for one in pods
    }
    fields.setdefault("workload", workload())
    return Facts("emoji", "ml", pods=list(pods), events=named, ledgers=list(ledgers), ledger_note=note, job=known, **fields)


def status(*pods: dict, **fields) -> Status:
    return judge(facts(*pods, **fields))


# ---- running ---------------------------------------------------------------------------------------------------------------


def ledger(*events: dict, steps: int = 0, attempt: int = 1, host: str = NAME) -> AttemptLedger:
    start = {"time_s": 1000.0, "kind": "start", "host": host}
    metrics = [
        {"time_s": 1010.0 + step, "step": step, "loss": 0.5, "step_s": 2.0, "images_per_s": 8.0} for step in range(1, steps + 1)
    ]
    return AttemptLedger(attempt=attempt, events=[start, *({"time_s": 1005.0, **one} for one in events)], metrics=metrics)


READY = {"kind": "ready"}

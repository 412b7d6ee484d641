"""Attempts of a run in memory, for the tests of this folder."""

from pathlib import Path

from fakes.memory_store import MemoryStore
from fakes.runs import commit_log, read_slots, snapshot

FACTS = {"loss": 0.25, "grad_norm": 1.5, "identity": {"hash": "x"}}


def held(store: MemoryStore, *, attempt: str = "1", host: str = "pod-a", **settings: object):
    log = commit_log(store, **settings)
    log.claim(attempt=attempt, host=host)
    return log


def save(log, folder: Path, *steps: int):
    return [log.commit(snapshot(folder / "states", step=step), step=step, facts=FACTS) for step in steps][-1]


def kinds(store: MemoryStore) -> list[str]:
    return [slot.kind for slot in read_slots(store.objects)]

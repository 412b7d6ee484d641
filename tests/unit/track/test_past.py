"""Rows of earlier attempts, from what they left at the run's place."""

import math

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from sdjob.ledger.write import LedgerWriter
from sdjob.track.past import past_rows
from sdjob.track.row import Picture, Row, row_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def attempt(store: MemoryStore, number: int, *, steps: range, loss: float, drawn: tuple[int, ...] = (), prompts=None) -> None:
    ledger = LedgerWriter(store, attempt=number, clock=FakeClock())
    for step in steps:
        ledger.metrics(step, loss=loss + step, images=2)
        if step in drawn:
            store.objects[f"attempts/{number:04d}/samples/{step:08d}/00-00.png"] = b"a picture"
            ledger.event("samples", step=step, seconds=1.0, **({"prompts": prompts} if prompts else {}))
    ledger.flush()


def rows(store: MemoryStore, *, after: int, through: int) -> list[Row]:
    return list(past_rows(store, after=after, through=through, prompts=["now"]))


def test_what_was_trained_twice_counts_as_the_last_attempt_saw_it(store):
    attempt(store, 1, steps=range(1, 6), loss=0.0)
    attempt(store, 2, steps=range(3, 8), loss=100.0)
    told = {row.step: row.values["train/loss"] for row in rows(store, after=0, through=6)}
    assert told == {1: 1.0, 2: 2.0, 3: 103.0, 4: 104.0, 5: 105.0, 6: 106.0}


def test_only_the_steps_between(store):
    attempt(store, 1, steps=range(1, 9), loss=0.0)
    assert [row.step for row in rows(store, after=3, through=5)] == [4, 5]


def test_nothing_is_read_where_nothing_is_missing(store):
    assert rows(store, after=5, through=5) == []
    assert store.calls == []


def test_pictures_come_with_the_prompts_of_their_time(store):
    attempt(store, 1, steps=range(1, 5), loss=0.0, drawn=(2, 4), prompts=["then"])
    attempt(store, 2, steps=range(4, 6), loss=0.0, drawn=(4,))
    pictures = {row.step: row.pictures for row in rows(store, after=0, through=5) if row.pictures}
    assert pictures == {
        2: (Picture("attempts/0001/samples/00000002/00-00.png", "00-00", "then"),),
        4: (Picture("attempts/0002/samples/00000004/00-00.png", "00-00", "now"),),
    }


def test_every_number_of_a_record_and_nothing_else():
    record = {"schema": 1, "time_s": 5.0, "step": 3, "loss": 0.5, "grad_norm": None, "step_s": None, "why": "no number"}
    row = row_of({**record, "not_finite": {"grad_norm": "inf"}})
    assert row == Row(3, 5.0, {"train/loss": 0.5, "train/grad_norm": math.inf})


def test_a_held_out_loss_stands_apart_from_the_trainings():
    row = row_of({"time_s": 5.0, "step": 3, "loss": 0.5, "held_out_loss": 0.7})
    assert row.values == {"train/loss": 0.5, "validation/loss": 0.7}

"""A revision means one commit for the whole of a run."""

from dataclasses import replace

import pytest

from fakes.checkpoints import make_job
from fakes.memory_store import MemoryStore
from sdjob.core.errors import UsageError
from sdjob.core.retry import Backoff
from sdjob.job.pins import PINS_KEY, pinned, read_pins, write_pins
from sdjob.spec.places import Place
from sdjob.store.patient import PatientStore

COMMIT, LATER = "a" * 40, "b" * 40


def patient(store):
    return PatientStore(store, backoff=Backoff(attempts=1))


def resolving(commit, asked):
    def resolve(place: Place) -> Place:
        asked.append(place.uri)
        return replace(place, revision=commit)

    return resolve


def hub_job(**model):
    return make_job(
        model={"source": "hf://owner/base", "revision": "main", **model},
        data={"source": "hf://owner/pictures", "revision": "v2"},
        train={"init_from": "hf://owner/start"},
    )


def test_every_revision_becomes_a_commit():
    asked = []
    job, pins = pinned(hub_job(), stored={}, resolve=resolving(COMMIT, asked))
    assert asked == [
        "hf://models/owner/base@main",
        "hf://datasets/owner/pictures@v2",
        "hf://models/owner/start@main",
    ]
    assert (job.model.revision, job.data.revision) == (COMMIT, COMMIT)
    assert job.train.init_from == f"hf://owner/start@{COMMIT}"
    assert set(pins) == set(asked)


def test_folders_and_buckets_have_none():
    job = make_job(model={"source": "/models/x", "revision": None}, data={"source": "s3://bucket/x", "revision": None})
    assert pinned(job, stored={}, resolve=resolving(COMMIT, [])) == (job, {})


def test_a_later_attempt_keeps_to_the_first_ones_commits():
    store = MemoryStore()
    _, pins = pinned(hub_job(), stored={}, resolve=resolving(COMMIT, []))
    write_pins(pins, store=patient(store))
    asked = []
    job, again = pinned(hub_job(), stored=read_pins(patient(store)), resolve=resolving(LATER, asked))
    assert asked == []
    assert job.model.revision == COMMIT
    assert again == pins


def test_another_revision_is_asked_for():
    _, pins = pinned(hub_job(), stored={}, resolve=resolving(COMMIT, []))
    job, _ = pinned(hub_job(revision="v9"), stored=pins, resolve=resolving(LATER, []))
    assert (job.model.revision, job.data.revision) == (LATER, COMMIT)


def test_a_run_without_the_hub_writes_none():
    store = MemoryStore()
    write_pins({}, store=patient(store))
    assert store.objects == {}
    assert read_pins(patient(store)) == {}


def test_damage_is_told():
    with pytest.raises(UsageError, match="is no JSON") as caught:
        read_pins(patient(MemoryStore({PINS_KEY: b"{"})))
    assert PINS_KEY in caught.value.where

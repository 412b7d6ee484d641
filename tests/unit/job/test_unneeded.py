"""What `sdjob cache --prune` may delete: shards that neither the job nor any checkpoint in reach needs, and nothing else."""

from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.runs import commit_log, quiet_log
from sdjob.core.errors import UnsoundError
from sdjob.encodings.reader import write_table
from sdjob.encodings.shard import PLACE
from sdjob.job.encodings import TABLE
from sdjob.job.unneeded import trained_on, unneeded_shards
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

ONE, TWO, THREE = (digit * 32 for digit in "123")


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path, monkeypatch):
    if request.param == "file":
        return open_store(parse_place(str(tmp_path / "place"), base=tmp_path))
    server = request.getfixturevalue("seaweed")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(parse_place(f"s3://{server.new_bucket()}/place", base=tmp_path))


def shard_key(name: str, *, bits: str = "a") -> str:
    return f"{PLACE}/{name}.{bits * 64}.safetensors"


def keys(store) -> set[str]:
    return {info.key for info in store.list("")}


def committed(store, *, folder: Path, names: list[str], keep: int = 2) -> None:
    """A run in this place whose checkpoints were trained on these shards, one after the other."""
    commits = commit_log(store, keep=keep)
    commits.claim(attempt="a", host="h")
    for step, name in enumerate(names, start=1):
        snapshot = folder / f"step-{step}"
        snapshot.mkdir(parents=True)
        write_table(snapshot / TABLE, sha256_by_shard={name: "a" * 64})
        (snapshot / "weights").write_bytes(bytes([step]))
        commits.commit(snapshot, step=step, facts={})
    commits.prune()


def test_a_shard_that_nobody_names_goes_in_whatever_bits(store):
    for key in (shard_key(ONE), shard_key(TWO), shard_key(TWO, bits="b"), f"{PLACE}/notes.txt", "data/index.jsonl"):
        store.write(key, b"x" * 5)
    found = unneeded_shards(store, needed={ONE})
    assert [info.key for info in found.shards] == [shard_key(TWO), shard_key(TWO, bits="b")]
    assert (found.size_bytes, found.num_needed, found.place) == (10, 1, store.uri)
    store.delete(info.key for info in found.shards)
    assert keys(store) == {shard_key(ONE), f"{PLACE}/notes.txt", "data/index.jsonl"}


def test_what_a_runs_checkpoints_were_trained_on_is_known(store, tmp_path):
    """Of those that a run could go on from: the first of three is retired."""
    committed(store, folder=tmp_path / "run", names=[ONE, TWO, THREE])
    assert trained_on(store, folder=tmp_path, clock=FakeClock(), log=quiet_log()) == {TWO, THREE}


def test_a_place_without_a_run_names_nothing(store, tmp_path):
    store.write(shard_key(ONE), b"x")
    assert trained_on(store, folder=tmp_path, clock=FakeClock(), log=quiet_log()) == set()


def test_where_it_cannot_be_known_nothing_is_said(store, tmp_path):
    committed(store, folder=tmp_path / "run", names=[ONE])
    tables = [info.key for info in store.list("blob/") if b"shards" in store.read(info.key)]
    store.delete(tables)
    with pytest.raises(UnsoundError):
        trained_on(store, folder=tmp_path, clock=FakeClock(), log=quiet_log())

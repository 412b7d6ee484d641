"""What a node that follows makes sure of by itself: the same log, the same commit, the same files."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fakes.memory_store import MemoryStore
from fakes.runs import commit_log, snapshot
from sdjob.core.errors import StorageError, UsageError
from sdjob.job.nodes.follow import check_same, refuse_another_log, same_commit
from sdjob.job.nodes.start import Start, start_of
from unit.job.test_resume import resolved

FACTS = {"loss": 1.0, "grad_norm": 1.0}


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def start(store, tmp_path):
    """Node 0 goes on from step 20 of two commits."""
    before = commit_log(store)
    before.claim(attempt="before", host="first")
    for step in (10, 20):
        before.commit(snapshot(tmp_path / "made", step=step), step=step, facts=FACTS)
    log = commit_log(store)
    claim = log.claim(attempt="now", host="first")
    restored = log.restore(tmp_path / "node-0")
    return start_of(claim, resolved(), restored=restored)


def restored_here(store, start, tmp_path):
    log = commit_log(store)
    run = SimpleNamespace(commits=log)
    return same_commit(run, start, history=log.replay(), into=tmp_path / "here")


def test_what_node_0_tells_survives_the_way(start):
    assert Start.of(json.loads(json.dumps(start.fields()))) == start
    assert (start.epoch, start.slot, start.total_steps) == (2, 2, resolved().total_steps)


def test_the_commit_that_was_chosen_is_read(store, start, tmp_path):
    manifest = restored_here(store, start, tmp_path)
    assert manifest.step == 20
    wanted = {path.name: path.read_bytes() for path in snapshot(tmp_path / "made", step=20).iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == wanted


def test_an_older_one_that_was_chosen_is_read_though_there_is_a_newer(store, start, tmp_path):
    """As node 0 goes back where the newest is damaged: all nodes must go back alike."""
    older = next(commit for commit in commit_log(store).replay().commits if commit.step == 10)
    manifest = restored_here(store, replace(start, slot=older.slot, digest=older.digest), tmp_path)
    assert manifest.step == 10


def test_at_a_fresh_start_nothing_is_read(store, start, tmp_path):
    assert restored_here(store, replace(start, slot=None, digest=None), tmp_path) is None
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("change", [{"slot": 9}, {"digest": "0" * 64}, {"slot": 1}])
def test_another_commit_than_the_chosen_is_not_taken(store, start, tmp_path, change):
    with pytest.raises(StorageError, match="the log does not have the commit that node 0 restores"):
        restored_here(store, replace(start, **change), tmp_path)


def test_bytes_that_are_not_those_of_the_commit_are_not_trained_from(store, start, tmp_path):
    manifest = commit_log(store).manifest_of(commit_log(store).replay().live[0])
    store.write(manifest.files["weights.safetensors"].blob, b"other weights")
    with pytest.raises(StorageError, match="node 0 could read the checkpoint and this node cannot"):
        restored_here(store, start, tmp_path)


def test_a_node_whose_place_is_another_is_told(store, start):
    refuse_another_log(start, history=commit_log(store).replay(), where="here")
    elsewhere = MemoryStore()
    commit_log(elsewhere).claim(attempt="another", host="second")
    with pytest.raises(UsageError, match=r"its checkpoint.to is another place than node 0's"):
        refuse_another_log(start, history=commit_log(elsewhere).replay(), where="there")


@pytest.mark.parametrize("change", [{"nonce": "of another claim"}, {"epoch": 1}])
def test_a_claim_is_known_by_all_of_it(store, start, change):
    with pytest.raises(UsageError):
        refuse_another_log(replace(start, **change), history=commit_log(store).replay(), where="here")


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({"hashes": {"unet/w": "b" * 64}}, 'model_files.unet/w: "' + "a" * 64 + '" -> "' + "b" * 64 + '"'),
        ({"index": "j" * 64}, 'index_sha256: "' + "i" * 64 + '" -> "' + "j" * 64 + '"'),
    ],
)
def test_a_node_with_other_files_is_told_which(start, here, words):
    check_same(resolved(), start=start)
    with pytest.raises(UsageError) as caught:
        check_same(resolved(**here), start=start)
    assert words in str(caught.value)

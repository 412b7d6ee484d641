"""Copies on scratch take the place of a download where their bytes are the commit's, and nowhere else."""

import pytest

from fakes.memory_store import MemoryStore
from fakes.runs import commit_log, digest_of, snapshot
from sdjob.job.kept import Kept


@pytest.fixture
def store(tmp_path):
    """With steps 10 and 20 committed; the snapshots lie in states/."""
    store = MemoryStore()
    log = commit_log(store)
    log.claim(attempt="one", host="here")
    for step in (10, 20):
        log.commit(snapshot(tmp_path / "states", step=step), step=step, facts={})
    return store


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "kept")


def keep(kept, tmp_path, *, step):
    kept.keep(snapshot(tmp_path / "states", step=step), digest=digest_of(step, folder=tmp_path / "states"))


def restore(store, kept, tmp_path):
    """What a later attempt restores, and the files that it read from the store."""
    client, read = store.client(), []
    client.before.append(lambda call: read.append(call.key) if call.method == "read_to" else None)
    log = commit_log(client)
    log.claim(attempt="two", host="here")
    restored = log.restore(tmp_path / "restored", copies=kept.root)
    return restored, read


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_lies_on_scratch_is_not_downloaded(store, kept, tmp_path):
    keep(kept, tmp_path, step=20)
    restored, read = restore(store, kept, tmp_path)
    whole = contents(snapshot(tmp_path / "states", step=20))
    assert (restored.step, contents(restored.folder), read) == (20, whole, [])
    assert restored.near_bytes == sum(map(len, whole.values())) == restored.manifest.size_bytes


def test_nothing_kept_is_a_download(store, kept, tmp_path):
    restored, read = restore(store, kept, tmp_path)
    assert (restored.step, restored.near_bytes, len(read)) == (20, 0, 3)


def test_an_older_commits_copies_are_none_of_the_newest(store, kept, tmp_path):
    keep(kept, tmp_path, step=10)
    restored, _ = restore(store, kept, tmp_path)
    assert (restored.step, restored.near_bytes) == (20, 0)


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "gone", "folder"])
def test_a_copy_that_was_harmed_is_downloaded_instead(harm, store, kept, tmp_path):
    keep(kept, tmp_path, step=20)
    states = snapshot(tmp_path / "states", step=20)
    whole = contents(states)
    copy = next(kept.root.iterdir()) / "weights.safetensors"
    data = copy.read_bytes()
    copy.unlink()
    if harm == "folder":
        copy.mkdir()
    elif harm != "gone":
        copy.write_bytes({"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x"}[harm])
    restored, _ = restore(store, kept, tmp_path)
    assert contents(restored.folder) == whole
    assert restored.near_bytes == restored.manifest.size_bytes - len(data)


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_commit_whose_blob_the_store_has_lost_is_set_aside_all_the_same(harm, store, kept, tmp_path):
    """Another machine could not restore it, so nothing may be built on it."""
    keep(kept, tmp_path, step=20)
    weights = commit_log(store).fetch(tmp_path / "looked").manifest.files["weights.safetensors"].blob
    if harm == "gone":
        del store.objects[weights]
    else:
        store.objects[weights] = store.objects[weights][:-1]
    restored, _ = restore(store, kept, tmp_path)
    assert (restored.step, restored.near_bytes) == (10, 0)


def test_scratch_that_makes_no_links_costs_nothing(store, kept, tmp_path, monkeypatch):
    keep(kept, tmp_path, step=20)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    restored, _ = restore(store, kept, tmp_path)
    assert (restored.step, restored.near_bytes) == (20, 0)
    keep(kept, tmp_path, step=10)
    assert not list(kept.root.iterdir()), "not even half of it"


def test_only_the_last_is_kept(kept, tmp_path):
    for step in (10, 20, 20):
        keep(kept, tmp_path, step=step)
    (only,) = kept.root.iterdir()
    assert only.name == digest_of(20, folder=tmp_path / "states")
    assert contents(only) == contents(snapshot(tmp_path / "states", step=20))
    kept.clear()
    assert not kept.root.exists()
    kept.clear()

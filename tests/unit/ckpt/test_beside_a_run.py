"""What the simulator and the mutants found, each as a short history: mostly alarms that were false, beside a run that goes on."""

import pytest

from fakes.memory_store import Call, Hook, MemoryStore, busy, flipped
from fakes.runs import commit_log, snapshot
from sdjob.ckpt.verify import verify
from sdjob.core.errors import FencedError, MissingError, StorageError, UnsoundError
from sdjob.store.base import ObjectChangedError


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def once(method: str, action) -> Hook:
    """The action at the first call of a method, before the call."""
    left = [action]

    def hook(call: Call) -> None:
        if call.method == method and left:
            left.pop()()

    return hook


def saved(store: MemoryStore, folder, *steps: int, **settings: object):
    log = commit_log(store, **settings)
    log.claim(attempt="1", host="pod-a")
    for step in steps:
        log.commit(snapshot(folder / "states", step=step), step=step, facts={})
    return log


def test_a_byte_turned_on_the_way_does_not_make_a_store_dishonest(store):
    turned: list[str] = []

    def damage(key: str, data: bytes) -> bytes:
        turned.append(key)
        return flipped(data) if len(turned) == 1 else data

    store.damage = damage
    commit_log(store).probe()
    assert len(turned) == 2


def test_a_store_that_says_created_to_both_is_refused_though_it_keeps_the_first():
    """Each of two attempts would believe that the slot is its own."""

    class Flatterer(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            super().create(key, data)
            return True

    with pytest.raises(UnsoundError, match="lets two writers create the same object"):
        commit_log(Flatterer()).probe()


@pytest.mark.parametrize("trouble", [busy(), ObjectChangedError("replaced while it was read")], ids=["broken off", "replaced"])
def test_a_body_that_comes_whole_at_the_next_try_is_not_damaged(store, tmp_path, trouble):
    """The hash of a try begins anew, not where the broken one left it."""

    class Breaking(MemoryStore):
        reads = 0

        def read_to(self, key, path, *, on_chunk=None) -> None:
            super().read_to(key, path, on_chunk=on_chunk)
            self.reads += 1
            if self.reads % 2:  # each first try, of the second reading too
                raise trouble

    saved(store, tmp_path, 10)
    assert commit_log(Breaking(store.objects)).fetch(tmp_path / "r").step == 10


def test_a_commit_that_is_pruned_while_it_is_verified_is_not_damaged(store, tmp_path):
    writer = saved(store, tmp_path, 10, 20, keep=1)
    reader = store.client()
    reader.before.append(once("read_to", writer.prune))
    report = verify(commit_log(reader))
    assert report.is_whole
    assert [checked.commit.step for checked in report.commits] == [20]


def test_damage_beside_pruning_is_still_reported(store, tmp_path):
    writer = saved(store, tmp_path, 10, 20, keep=1)
    (weights,) = (f.blob for n, f in writer.manifest_of(writer.replay().live[0]).files.items() if n == "weights.safetensors")
    store.objects[weights] = b"damaged"
    reader = store.client()
    reader.before.append(once("read_to", writer.prune))
    assert [checked.commit.step for checked in verify(commit_log(reader)).commits if checked.damage] == [20]


def test_a_step_that_is_pruned_while_it_is_fetched_is_missing_not_damaged(store, tmp_path):
    writer = saved(store, tmp_path, 10, 20, keep=1)
    reader = store.client()
    reader.before.append(once("read_to", writer.prune))
    with pytest.raises(MissingError, match="the steps that it has: 20"):
        commit_log(reader).fetch(tmp_path / "r", step=10)


def test_a_zombie_whose_upload_is_swept_learns_that_it_is_fenced(store, tmp_path):
    """A newer holder's pruning takes what an older one still uploads: the store is not to blame."""
    zombie = saved(store, tmp_path, 10)
    other = store.client()

    def sweep(call: Call) -> None:
        if call.method == "write_file":
            log = commit_log(other)
            log.claim(attempt="2", host="pod-b")
            log.prune()

    store.after.append(sweep)
    with pytest.raises(FencedError):
        zombie.commit(snapshot(tmp_path / "states", step=20), step=20, facts={})


def test_a_store_that_loses_uploads_is_to_blame(store, tmp_path):
    log = saved(store, tmp_path, 10)
    store.after.append(lambda call: store.objects.pop(call.key, None) if call.method == "write_file" else None)
    with pytest.raises(StorageError, match="does not keep"):
        log.commit(snapshot(tmp_path / "states", step=20), step=20, facts={})


def test_a_late_delete_never_hits_what_was_uploaded_since(store, tmp_path):
    """One file's content is in steps 10 and 30, not in 20; the delete that pruned it arrives once more after step 30."""

    def state(step: int, text: bytes):
        folder = snapshot(tmp_path / "states", step=step)
        (folder / "optimizer.safetensors").write_bytes(text)
        return folder

    log = saved(store, tmp_path, keep=1)
    deletes: list[str] = []
    store.before.append(lambda call: deletes.extend(call.key.split()) if call.method == "delete" else None)
    for step, text in ((10, b"odd"), (20, b"even"), (30, b"odd")):
        log.commit(state(step, text), step=step, facts={})
        log.prune()
    store.delete(deletes)
    assert verify(commit_log(store.client())).is_whole

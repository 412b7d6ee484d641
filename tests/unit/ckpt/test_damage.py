"""Every kind of object, damaged in every way: always noticed, never trained from, and never a fresh start."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.memory_store import MemoryStore, busy, fail, flipped
from fakes.runs import check_invariants, commit_log, digest_of, play, quiet_log, read_slots, snapshot
from sdjob.ckpt.blobs import blob_key
from sdjob.ckpt.engine import Restored
from sdjob.ckpt.journal import HINT_KEY
from sdjob.ckpt.slot import CommitSlot, QuarantineSlot, decode, encode, slot_key
from sdjob.ckpt.verify import verify
from sdjob.core.errors import FencedError, StorageError, UnsoundError
from sdjob.store.base import ObjectDeniedError

Spoil = Callable[[bytes], bytes | None]
SPOILS: dict[str, Spoil] = {
    "first bit flipped": flipped,
    "last bit flipped": lambda data: flipped(data, at=-1 % len(data)),
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "zeroed": lambda data: b"\0" * len(data),
    "longer": lambda data: data + b"x",
    "deleted": lambda data: None,
}
LIES = {name: spoil for name, spoil in SPOILS.items() if name != "deleted"}


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Slot 0 a claim, 1 to 3 the commits of steps 10, 20, 30; no file is shared but the optimizer's."""
    store = MemoryStore()
    log = commit_log(store)
    log.claim(attempt="1", host="pod-a")
    for step in (10, 20, 30):
        log.commit(snapshot(tmp_path / "states", step=step), step=step, facts={})
    return store


def spoil_object(store: MemoryStore, key: str, spoil: Spoil) -> None:
    spoiled = spoil(store.objects[key])
    if spoiled is None:
        del store.objects[key]
    else:
        store.objects[key] = spoiled


def keys_of(store: MemoryStore, step: int) -> dict[str, str]:
    log = commit_log(MemoryStore(store.objects))
    commit = next(commit for commit in log.replay().live if commit.step == step)
    files = log.manifest_of(commit).files
    own = {name: file.blob for name, file in files.items() if name != "optimizer.safetensors"}
    return {"manifest": blob_key(commit.manifest, epoch=commit.epoch), **own}


def recovered(store: MemoryStore, tmp_path: Path) -> Restored | None:
    log = commit_log(store)
    log.claim(attempt="2", host="pod-b")
    return log.restore(tmp_path / "restored")


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("part", ["manifest", "weights.safetensors", "state.json"])
class TestDamagedCommit:
    def test_is_set_aside_and_the_one_before_restored(self, store, tmp_path, part, spoil):
        spoil_object(store, keys_of(store, 30)[part], spoil)
        restored = recovered(store, tmp_path)
        assert restored.step == 20
        assert restored.digest == digest_of(20, folder=tmp_path / "states")
        assert sorted(path.name for path in restored.folder.iterdir()) == sorted(restored.manifest.files)
        quarantine = list(read_slots(store.objects))[-1]
        assert isinstance(quarantine, QuarantineSlot)
        assert quarantine.slot == 3

    def test_is_not_looked_at_again_and_its_step_can_be_committed_anew(self, store, tmp_path, part, spoil):
        spoil_object(store, keys_of(store, 30)[part], spoil)
        play(commit_log(store), tmp_path, acknowledged=[], steps=(10, 20, 30, 40))
        history = check_invariants(store.objects, folder=tmp_path)
        assert [commit.step for commit in history.live] == [40, 30]
        assert [commit.state for commit in history.commits if commit.step == 30] == ["quarantined", "live"]
        assert verify(commit_log(store)).is_whole

    def test_is_reported_by_verify_which_writes_nothing(self, store, tmp_path, part, spoil):
        spoil_object(store, keys_of(store, 30)[part], spoil)
        before = dict(store.objects)
        report = verify(commit_log(store))
        assert not report.is_whole
        assert report.restorable_step == 20
        assert [(checked.commit.step, bool(checked.damage)) for checked in report.commits] == [
            (30, True),
            (20, False),
            (10, False),
        ]
        assert store.objects == before


class TestNothingWhole:
    def test_stops_with_a_list_and_never_starts_afresh(self, store, tmp_path):
        for step in (10, 20, 30):
            spoil_object(store, keys_of(store, step)["weights.safetensors"], flipped)
        for _ in range(2):  # the second attempt finds them quarantined already
            with pytest.raises(UnsoundError, match="no whole checkpoint left") as caught:
                recovered(store, tmp_path)
            assert all(f"slot {number}:" in str(caught.value) for number in (1, 2, 3))
            assert caught.value.exit_code == 78
        assert list((tmp_path / "restored").iterdir()) == []

    def test_a_blob_that_all_share(self, store, tmp_path):
        shared = commit_log(store).fetch(tmp_path / "r").manifest.files["optimizer.safetensors"].blob
        del store.objects[shared]
        with pytest.raises(UnsoundError):
            recovered(store, tmp_path)
        assert verify(commit_log(store)).restorable_step is None

    def test_every_commits_slot_is_damaged(self, store, tmp_path):
        for number in (1, 2, 3):
            spoil_object(store, slot_key(number), flipped)
        with pytest.raises(UnsoundError, match="slot 2: "):
            recovered(store, tmp_path)


def test_two_blobs_swapped(store, tmp_path):
    ours, theirs = keys_of(store, 30)["weights.safetensors"], keys_of(store, 20)["weights.safetensors"]
    store.objects[ours], store.objects[theirs] = store.objects[theirs], store.objects[ours]
    assert recovered(store, tmp_path).step == 10


def test_damage_on_the_way_is_read_once_more(store, tmp_path):
    keys = keys_of(store, 30)
    seen: list[str] = []

    def damage(key: str, data: bytes) -> bytes:
        first = key not in seen
        seen.append(key)
        return flipped(data) if first and (key in keys.values() or key == slot_key(2)) else data

    store.damage = damage
    assert recovered(store, tmp_path).step == 30
    assert not any(isinstance(slot, QuarantineSlot) for slot in read_slots(MemoryStore(store.objects).objects))


def test_trouble_is_not_damage(store, tmp_path):
    """What cannot be read now may be whole: no older state is taken instead, nothing is set aside."""
    slots = sum(key.startswith("log/") for key in store.objects)
    for error in (busy(), StorageError("EIO"), ObjectDeniedError("403")):
        client = store.client()
        client.before.append(fail(error, method="read_to", times=99))
        with pytest.raises(type(error)):
            recovered(client, tmp_path)
    assert not any(isinstance(slot, QuarantineSlot) for slot in read_slots(store.objects))
    assert sum(key.startswith("log/") for key in store.objects) == slots + 3


class TestDamagedSlot:
    @pytest.mark.parametrize("spoil", LIES.values(), ids=LIES)
    @pytest.mark.parametrize(("number", "step"), [(0, 30), (1, 30), (2, 30), (3, 20)])
    def test_is_warned_of_and_passed_by(self, store, tmp_path, number, step, spoil):
        spoil_object(store, slot_key(number), spoil)
        log = quiet_log()
        attempt = commit_log(store, log=log)
        claim = attempt.claim(attempt="2", host="pod-b")
        assert claim.epoch >= 2
        assert attempt.restore(tmp_path / "r").step == step
        assert f"{number:012d}.json" in log.stream.getvalue()
        play(commit_log(store), tmp_path, acknowledged=[], steps=(10, 20, 30, 40))
        assert not verify(commit_log(store)).is_whole

    def test_a_claim_that_is_damaged_has_its_epoch_all_the_same(self, store, tmp_path):
        zombie = commit_log(store)
        zombie.claim(attempt="2", host="pod-b")
        spoil_object(store, slot_key(4), flipped)
        assert commit_log(store).claim(attempt="3", host="pod-c").epoch == 3
        with pytest.raises(FencedError, match="Attempt 3 on host pod-c"):
            zombie.commit(snapshot(tmp_path / "states", step=40), step=40, facts={})

    def test_two_slots_swapped(self, store, tmp_path):
        one, other = slot_key(2), slot_key(3)
        store.objects[one], store.objects[other] = store.objects[other], store.objects[one]
        assert recovered(store, tmp_path).step == 10

    def test_a_holder_that_meets_one_stops(self, store, tmp_path):
        """It may be another's claim: going past it could put two attempts side by side."""
        holder = commit_log(store)
        holder.claim(attempt="2", host="pod-b")
        store.objects[slot_key(5)] = b"torn"
        for act in (holder.still_owner, lambda: holder.commit(snapshot(tmp_path, step=40), step=40, facts={})):
            with pytest.raises(UnsoundError, match="may have claimed the run there"):
                act()
        assert slot_key(6) not in store.objects

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_one_that_is_gone_is_a_gap(self, store, tmp_path, number):
        del store.objects[slot_key(number)]
        with pytest.raises(UnsoundError, match=f"slot {number} is missing") as caught:
            recovered(store, tmp_path)
        assert caught.value.exit_code == 78
        assert "lifecycle rule" in str(caught.value)
        assert slot_key(4) not in store.objects

    def test_the_last_one_gone_is_known_from_the_hint(self, store, tmp_path):
        del store.objects[slot_key(3)]
        with pytest.raises(UnsoundError, match="slot 3 is missing"):
            recovered(store, tmp_path)

    def test_all_gone_is_known_from_the_hint_or_the_blobs(self, store, tmp_path):
        for key in [key for key in store.objects if key.startswith("log/")]:
            del store.objects[key]
        with pytest.raises(UnsoundError, match="slot 0 is missing"):
            recovered(store, tmp_path)
        del store.objects[HINT_KEY]
        with pytest.raises(UnsoundError, match="its log is gone"):
            recovered(store, tmp_path)


class TestListing:
    @pytest.mark.parametrize(
        "relist",
        [lambda keys: [], lambda keys: keys[:1], lambda keys: keys[:-1], lambda keys: keys[1:], lambda keys: keys * 2],
        ids=["falsely empty", "one key", "late", "the first left out", "twice"],
    )
    @pytest.mark.parametrize("hint", [True, False])
    def test_that_is_wrong_hides_nothing(self, store, tmp_path, relist, hint):
        if not hint:
            del store.objects[HINT_KEY]
        store.relist = relist
        assert recovered(store, tmp_path).step == 30
        assert list(read_slots(store.objects))[-1].epoch == 2

    @pytest.mark.parametrize("error", [ObjectDeniedError("403"), StorageError("timeout"), busy()], ids=["403", "timeout", "503"])
    @pytest.mark.parametrize(("method", "key"), [("list", "log/"), ("read", "log/"), ("read", "hint/"), ("list", "blob/")])
    def test_that_fails_is_never_a_fresh_start(self, tmp_path, method, key, error):
        store = MemoryStore()
        store.before.append(fail(error, method=method, key=key, times=99))
        with pytest.raises(type(error)):
            recovered(store, tmp_path)
        assert store.objects == {}

    def test_other_objects_beside_the_slots_are_left_alone(self, store, tmp_path):
        store.objects["log/.DS_Store"] = b"x"
        store.objects["log/99.json"] = b"x"
        assert recovered(store, tmp_path).step == 30


class TestHint:
    @pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
    def test_damaged_says_nothing(self, store, tmp_path, spoil):
        spoil_object(store, HINT_KEY, spoil)
        assert recovered(store, tmp_path).step == 30

    def test_stale_says_nothing(self, store, tmp_path):
        stale = store.objects[HINT_KEY]
        recovered(store, tmp_path)
        store.objects[HINT_KEY] = stale
        assert recovered(store, tmp_path).step == 30


def test_a_kept_manifest_that_is_damaged_stops_all_deletion(store, tmp_path):
    spoil_object(store, keys_of(store, 30)["manifest"], flipped)
    log = quiet_log()
    holder = commit_log(store, log=log, keep=1)
    holder.claim(attempt="2", host="pod-b")
    before = {key for key in store.objects if key.startswith("blob/")}
    holder.prune()
    assert before <= set(store.objects)
    assert "nothing is deleted" in log.stream.getvalue()


def test_a_damaged_manifest_is_not_reused_from(store, tmp_path):
    spoil_object(store, keys_of(store, 10)["manifest"], flipped)
    holder = commit_log(store)
    holder.claim(attempt="2", host="pod-b")
    holder.commit(snapshot(tmp_path / "states", step=40), step=40, facts={})
    assert holder.restore(tmp_path / "r").step == 40


def test_a_file_name_that_leads_out_is_refused(store, tmp_path):
    """Bytes with the right hash, by a hostile writer: the name alone is wrong."""
    from sdjob.ckpt.manifest import Manifest

    data = commit_log(store).fetch(tmp_path / "r").manifest.to_bytes()
    with pytest.raises(UnsoundError, match=re.escape("'../state.json'")):
        Manifest.from_bytes(data.replace(b'"state.json"', b'"../state.json"'))


def test_a_slot_and_a_manifest_that_name_different_steps(store, tmp_path):
    """Each is whole for itself, and its files add up; they are not one commit."""
    newest = decode(store.objects[slot_key(3)], number=3)
    assert isinstance(newest, CommitSlot)
    store.objects[slot_key(3)] = encode(replace(newest, step=31))
    log = commit_log(store)
    log.claim(attempt="2", host="pod-b")
    assert log.restore(tmp_path / "r").step == 20


def test_a_manifest_whose_files_are_another_states(store, tmp_path):
    """Slot, manifest and blobs are each whole, and the digest is said twice alike; it is not that of these files."""
    newest = decode(store.objects[slot_key(3)], number=3)
    assert isinstance(newest, CommitSlot)
    manifest = json.loads(store.objects[blob_key(newest.manifest, epoch=newest.epoch)])
    manifest["files"]["weights.safetensors"] = manifest["files"]["optimizer.safetensors"]
    data = json.dumps(manifest).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    store.objects[blob_key(sha256, epoch=newest.epoch)] = data
    store.objects[slot_key(3)] = encode(replace(newest, manifest=sha256))
    log = commit_log(store)
    log.claim(attempt="2", host="pod-b")
    assert log.restore(tmp_path / "r").step == 20


def test_a_blob_that_is_gone_is_not_reused(store, tmp_path):
    """Frozen weights are uploaded once; where somebody deleted them since, the next commit brings them again."""
    log = commit_log(store)
    log.claim(attempt="2", host="pod-b")
    (shared,) = {f.blob for c in log.replay().live for n, f in log.manifest_of(c).files.items() if n == "optimizer.safetensors"}
    del store.objects[shared]
    log.commit(snapshot(tmp_path / "states", step=40), step=40, facts={})
    assert commit_log(store.client()).fetch(tmp_path / "r").step == 40

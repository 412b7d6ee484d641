"""What a commit log lets go, and what it keeps whatever happens meanwhile."""

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import fail
from fakes.runs import check_invariants
from sdjob.ckpt.slot import slot_key
from sdjob.core.errors import StorageError, UnsoundError
from unit.ckpt.attempts import held, kinds, save


class TestPrune:
    def test_keeps_the_last_and_every_nth(self, store, tmp_path):
        log = held(store, keep=2, keep_every=20)
        save(log, tmp_path, 10, 20, 30, 40, 50)
        assert log.prune() == [10, 30]
        assert [commit.step for commit in log.replay().live] == [50, 40, 20]
        check_invariants(store.objects, folder=tmp_path)

    def test_deletes_only_what_no_live_manifest_names(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, 10, 20, 30)
        log.prune()
        named = {file.blob for file in log.manifest_of(log.replay().live[0]).files.values()}
        blobs = {key for key in store.objects if key.startswith("blob/")}
        assert named < blobs
        assert len(blobs) == len(named) + 1

    def test_nothing_to_do_writes_nothing(self, store, tmp_path):
        clock = FakeClock()
        log = held(store, clock=clock)
        save(log, tmp_path, 10)
        slots = kinds(store)
        assert log.prune() == []
        assert kinds(store) == slots
        assert clock.slept_s == []

    def test_readers_have_the_grace_period(self, store, tmp_path):
        clock, seen = FakeClock(), []
        log = held(store, keep=1, clock=clock, prune_grace_s=30.0)
        save(log, tmp_path, 10, 20)
        store.before.append(lambda call: seen.append((call.method, clock.monotonic_s())))
        log.prune()
        assert clock.slept_s == [30.0]
        retired_s = next(at for method, at in seen if method == "create")
        assert all(at >= retired_s + 30.0 for method, at in seen if method == "delete")

    def test_what_a_killed_attempt_had_uploaded_goes(self, store, tmp_path):
        first = held(store)
        store.before.append(fail(StorageError("gone"), method="create"))
        with pytest.raises(StorageError):
            save(first, tmp_path, 10)
        assert any(key.startswith("blob/1/") for key in store.objects)
        log = held(store.client())
        save(log, tmp_path, 10)
        log.prune()
        assert not any(key.startswith("blob/1/") for key in store.objects)
        check_invariants(store.objects, folder=tmp_path)

    def test_a_newer_epochs_blobs_are_not_ours(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, 10, 20)
        store.objects["blob/2/" + "0" * 64] = b"another's upload"
        store.objects["blob/readme"] = b"a person's note"
        log.prune()
        assert {"blob/2/" + "0" * 64, "blob/readme"} <= set(store.objects)

    def test_asks_before_each_batch(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, 10, 20)
        for number in range(120):
            store.objects[f"blob/1/{number:064d}"] = b"torn"
        start = len(store.calls)
        log.prune()
        methods = [c.method for c in store.calls[start:] if c.method == "delete" or c.key == slot_key(4)]
        assert methods == ["read", "delete"] * 3

    def test_retires_many_in_small_slots(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, *range(1, 121))
        assert log.prune() == list(range(1, 120))
        assert kinds(store)[-3:] == ["retire"] * 3

    def test_a_retired_step_is_never_restored(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, 10, 20)
        log.prune()
        for commit in (log.replay().live[0],):
            del store.objects[log.manifest_of(commit).files["weights.safetensors"].blob]
        with pytest.raises(UnsoundError, match="no whole checkpoint left"):
            held(store.client()).restore(tmp_path / "r")

    def test_a_commit_that_was_superseded_is_retired_too(self, store, tmp_path):
        """The log says of every commit whose blobs are gone that it was let go."""
        log = held(store, keep=5)
        save(log, tmp_path, 10, 20, 15)
        log.prune()
        assert [(commit.step, commit.state) for commit in log.replay().commits] == [(10, "live"), (20, "retired"), (15, "live")]

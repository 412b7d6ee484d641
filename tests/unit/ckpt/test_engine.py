"""The commit log: one attempt's life, two attempts' quarrel, replies that are lost."""

import json
import math

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, busy, fail
from fakes.runs import check_invariants, commit_log, digest_of, play, read_slots, snapshot
from sdjob.ckpt.journal import MANY_SLOTS
from sdjob.ckpt.slot import ClaimSlot, CommitSlot, slot_key
from sdjob.core.errors import FencedError, SdjobError, StorageError, UnsoundError
from sdjob.store.base import TransientStoreError
from sdjob.store.local import LocalStore
from unit.ckpt.attempts import FACTS, held, kinds, save


class TestLongLog:
    """Above MANY_SLOTS, several slots are read at a time."""

    @pytest.fixture
    def long(self, store):
        for number in range(2 * MANY_SLOTS):
            held(store.client(), attempt=str(number))
        return store

    def test_every_slot_is_there_in_order(self, long):
        history = commit_log(long).replay()
        assert [claim.attempt for claim in history.claims] == [str(number) for number in range(2 * MANY_SLOTS)]
        assert held(long.client(), attempt="last").replay().epoch == 2 * MANY_SLOTS + 1

    def test_a_gap_is_named(self, long):
        del long.objects[slot_key(MANY_SLOTS + 3)]
        with pytest.raises(UnsoundError, match=f"slot {MANY_SLOTS + 3} is missing"):
            commit_log(long).replay()

    def test_a_damaged_slot_keeps_its_place(self, long):
        long.objects[slot_key(7)] = b"damaged"
        history = commit_log(long).replay()
        assert [slot.number for slot in history.damaged] == [7]
        assert history.head == 2 * MANY_SLOTS - 1


class TestOneAttempt:
    def test_a_fresh_run_has_nothing_to_restore(self, store, tmp_path):
        assert held(store).restore(tmp_path / "r") is None

    def test_on_a_folder_the_whole_way(self, tmp_path):
        digest = play(commit_log(LocalStore(tmp_path / "place")), tmp_path, acknowledged=[])
        again = commit_log(LocalStore(tmp_path / "place"))
        history = again.replay()
        assert history.done.digest == digest
        assert history.ends_in_done
        again.claim(attempt="2", host="h")
        assert again.restore(tmp_path / "r").digest == digest

    def test_what_was_committed_is_restored(self, store, tmp_path):
        commit = save(held(store), tmp_path, 10, 20)
        restored = held(store).restore(tmp_path / "r")
        assert (restored.step, restored.digest, restored.slot) == (20, commit.digest, commit.slot)
        assert restored.digest == digest_of(20, folder=tmp_path / "states")
        assert restored.manifest.facts == FACTS
        for path in snapshot(tmp_path / "states", step=20).iterdir():
            assert (restored.folder / path.name).read_bytes() == path.read_bytes()

    def test_other_files_are_stored_but_do_not_count(self, store, tmp_path):
        folder = snapshot(tmp_path / "states", step=10)
        plain = digest_of(10, folder=tmp_path / "states")
        (folder / "note.txt").write_text("hello")
        log = held(store)
        assert log.commit(folder, step=10, facts={}).digest == plain
        assert (log.restore(tmp_path / "r").folder / "note.txt").read_text() == "hello"

    def test_seconds_and_bytes_are_told(self, store, tmp_path):
        clock = FakeClock()
        store.before.append(lambda call: clock.advance(1.0))
        log = held(store, clock=clock)
        calls = len(store.calls)
        first = save(log, tmp_path, 10)
        assert first.seconds == len(store.calls) - calls
        sent = sum(len(data) for key, data in store.objects.items() if key.startswith("blob/"))
        assert first.uploaded_bytes == sent

    def test_an_equal_file_travels_once(self, store, tmp_path):
        log = held(store)
        save(log, tmp_path, 10, 20, 30)
        assert sum(call.method == "write_file" for call in store.calls) == 1 + 2 * 3

    def test_a_new_epoch_reuses_what_was_kept_at_its_claim(self, store, tmp_path):
        save(held(store), tmp_path, 10)
        other = store.client()
        save(held(other), tmp_path, 20)
        assert sum(call.method == "write_file" for call in other.calls) == 2
        check_invariants(store.objects, folder=tmp_path)

    def test_blobs_of_torn_commits_of_others_are_not_reused(self, store, tmp_path):
        first = held(store)
        store.before.append(fail(StorageError("disk"), method="create"))
        with pytest.raises(StorageError):
            save(first, tmp_path, 10)
        save(held(store.client()), tmp_path, 10)
        assert all(
            file.blob.startswith("blob/2/")
            for c in commit_log(store).replay().live
            for file in first.manifest_of(c).files.values()
        )

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "nan", True])
    @pytest.mark.parametrize("name", ["loss", "grad_norm"])
    def test_what_is_not_finite_is_never_committed(self, store, tmp_path, name, value):
        log = held(store)
        with pytest.raises(UnsoundError, match=f"{name} is .* at step 10"):
            log.commit(snapshot(tmp_path, step=10), step=10, facts={**FACTS, name: value})
        assert not any(key.startswith("blob/") for key in store.objects)

    def test_writing_without_a_claim_is_refused(self, store, tmp_path):
        log = commit_log(store)
        for call in (lambda: save(log, tmp_path, 10), log.prune, log.still_owner, lambda: log.restore(tmp_path)):
            with pytest.raises(SdjobError, match="claim the run first"):
                call()

    def test_a_snapshot_that_is_not_there(self, store, tmp_path):
        with pytest.raises(SdjobError, match="folder of readable files"):
            held(store).commit(tmp_path / "never", step=1, facts={})

    def test_finish_names_the_newest_commit_or_nothing(self, store, tmp_path):
        log = held(store)
        commit = save(log, tmp_path, 10)
        for step, digest in ((20, commit.digest), (10, "0" * 64)):
            with pytest.raises(SdjobError, match="newest commit"):
                log.finish(step=step, digest=digest, published=[])
        log.finish(step=10, digest=commit.digest, published=["hf://me/it"])
        assert log.replay().done.published == ("hf://me/it",)
        assert kinds(store)[-1] == "done"

    def test_a_done_run_is_opened_again_by_more_steps(self, store, tmp_path):
        play(commit_log(store), tmp_path, acknowledged=[], steps=(10, 20))
        play(commit_log(store), tmp_path, acknowledged=[], steps=(10, 20, 30))
        history = check_invariants(store.objects, folder=tmp_path)
        assert history.done.step == 30
        assert kinds(store).count("done") == 2

    def test_slots_are_small(self, store, tmp_path):
        play(commit_log(store), tmp_path, acknowledged=[])
        assert all(len(data) <= 2048 for key, data in store.objects.items() if key.startswith("log/"))


class TestFencing:
    @pytest.mark.parametrize("act", ["commit", "prune", "finish", "still_owner", "restore"])
    def test_a_zombie_writes_nothing_more(self, store, tmp_path, act):
        zombie = held(store, keep=1)
        digest = save(zombie, tmp_path, 10, 20).digest
        if act == "restore":  # it writes only where it finds damage
            key = next(f.blob for f in zombie.manifest_of(zombie.replay().live[0]).files.values())
            store.objects[key] = b"damaged"
        clock = FakeClock(unix_s=1_700_000_000.0)
        commit_log(store.client(), clock=clock).claim(attempt="7", host="pod-b")
        before = dict(store.objects)
        acts = {
            "commit": lambda: save(zombie, tmp_path, 30),
            "prune": zombie.prune,
            "finish": lambda: zombie.finish(step=20, digest=digest, published=[]),
            "still_owner": zombie.still_owner,
            "restore": lambda: zombie.restore(tmp_path / "r"),
        }
        with pytest.raises(FencedError, match=r"Attempt 7 on host pod-b .*2023-11-14 22:13:20 UTC") as caught:
            acts[act]()
        assert caught.value.exit_code == 76
        changed = {key for key in store.objects if before.get(key) != store.objects[key]}
        assert all(key.startswith("blob/1/") for key in changed)
        assert set(before) <= set(store.objects)

    def test_a_zombie_that_tries_again_is_fenced_again(self, store, tmp_path):
        zombie = held(store)
        held(store.client(), attempt="2")
        for _ in range(3):
            with pytest.raises(FencedError):
                save(zombie, tmp_path, 10)
        assert kinds(store) == ["claim", "claim"]

    def test_the_newest_winner_is_named(self, store, tmp_path):
        zombie = held(store)
        held(store.client(), attempt="2")
        held(store.client(), attempt="3", host="pod-c")
        with pytest.raises(FencedError, match="Attempt 3 on host pod-c"):
            save(zombie, tmp_path, 10)

    def test_a_claim_takes_the_next_slot_when_it_loses_a_race(self, store):
        late = store.client()
        raced = []

        def race(call):
            if call.method == "create" and not raced:
                raced.append(held(store, attempt="first"))

        late.before.append(race)
        claim = commit_log(late).claim(attempt="second", host="pod-b")
        assert claim.epoch == 2
        assert [c.attempt for c in claim.history.claims] == ["first", "second"]

    def test_a_claim_sees_what_was_committed_while_it_was_made(self, store, tmp_path):
        first, late = held(store), store.client()
        raced = []

        def race(call):
            if call.method == "create" and not raced:
                raced.append(save(first, tmp_path, 10))

        late.before.append(race)
        log = commit_log(late)
        claim = log.claim(attempt="second", host="pod-b")
        assert [commit.step for commit in claim.history.live] == [10]
        assert log.restore(tmp_path / "r").step == 10

    def test_a_zombie_pruner_deletes_nothing_between_two_batches(self, store, tmp_path):
        zombie = held(store, keep=1)
        save(zombie, tmp_path, 10, 20)
        blobs = {key for key in store.objects if key.startswith("blob/")}
        store.after.append(
            lambda call: (
                commit_log(MemoryStore(store.objects)).claim(attempt="2", host="h")
                if (call.method, call.key) == ("create", slot_key(3))
                else None
            )
        )
        with pytest.raises(FencedError):
            zombie.prune()
        assert blobs <= set(store.objects)


class TestLostReplies:
    def test_exactly_one_commit_when_the_retry_is_refused(self, store, tmp_path):
        log = held(store)
        store.after.append(fail(busy(), method="create", key="log/"))
        save(log, tmp_path, 10)
        save(log, tmp_path, 20)
        assert kinds(store) == ["claim", "commit", "commit"]

    def test_exactly_one_claim(self, store):
        store.after.append(fail(busy(), method="create", key="log/"))
        assert held(store).replay().epoch == 1
        assert kinds(store) == ["claim"]

    def test_a_commit_that_landed_after_all_retries_failed_is_found_by_the_next(self, store, tmp_path):
        log = held(store)
        store.after.append(fail(busy(), method="create", key="log/", times=1))
        store.before.append(fail(busy(), method="create", key="log/", times=0))
        retries = [fail(busy(), method="create", key="log/", times=8)]
        store.after[:] = retries
        with pytest.raises(TransientStoreError):
            save(log, tmp_path, 10)
        save(log, tmp_path, 20)
        assert [commit.step for commit in log.replay().live] == [20, 10]
        check_invariants(store.objects, folder=tmp_path)

    def test_prune_spares_a_commit_whose_reply_was_lost(self, store, tmp_path):
        log = held(store, keep=1)
        save(log, tmp_path, 10, 20)
        store.after.append(fail(busy(), method="create", key="log/", times=8))
        with pytest.raises(TransientStoreError):
            save(log, tmp_path, 30)
        store.after.clear()
        assert log.prune() == [10]
        assert [commit.step for commit in log.replay().live] == [30, 20]
        check_invariants(store.objects, folder=tmp_path)

    def test_a_delayed_commit_never_lands_on_pruned_blobs(self, store, tmp_path):
        """The PUT of the slot is still on its way when prune deletes what nothing names: the retire slot takes its number."""
        log = held(store, keep=3)
        save(log, tmp_path, 10)
        delayed: list[tuple[str, bytes]] = []
        create = store.create
        store.create = lambda key, data: (delayed.append((key, data)), (_ for _ in ()).throw(busy()))[0]
        with pytest.raises(TransientStoreError):
            save(log, tmp_path, 20)
        store.create = create
        log.prune()
        assert [create(key, data) for key, data in delayed] == [False] * len(delayed)
        assert [commit.step for commit in log.replay().live] == [10]
        check_invariants(store.objects, folder=tmp_path)

    def test_a_hint_that_is_not_written_is_no_failure(self, store, tmp_path):
        log = held(store)
        store.before.append(fail(StorageError("full"), method="write", key="hint/", times=99))
        save(log, tmp_path, 10)
        assert held(store.client()).restore(tmp_path / "r").step == 10


def test_claims_carry_who_and_when(store):
    commit_log(store, clock=FakeClock(unix_s=5.0)).claim(attempt="3", host="pod-a")
    (slot,) = read_slots(store.objects)
    assert isinstance(slot, ClaimSlot)
    assert (slot.attempt, slot.host, slot.time_s, slot.epoch) == ("3", "pod-a", 5.0, 1)


def test_a_slot_is_readable_by_people(store, tmp_path):
    commit = save(held(store), tmp_path, 10)
    fields = json.loads(store.objects[slot_key(commit.slot)])
    assert (fields["kind"], fields["step"], fields["digest"]) == (CommitSlot.kind, 10, commit.digest)

"""The commit log over places that lie, fail or hang, and what a reader gets from it."""

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, busy, fail
from fakes.runs import check_invariants, commit_log, digest_of, quiet_log
from sdjob.core.errors import MissingError, StorageError, UnsoundError
from sdjob.store.base import ObjectDeniedError
from unit.ckpt.attempts import held, kinds, save


class TestFetch:
    def test_newest_or_by_step_without_a_write(self, store, tmp_path):
        save(held(store), tmp_path, 10, 20)
        before, reader = dict(store.objects), store.client()
        assert commit_log(reader).fetch(tmp_path / "r").step == 20
        assert commit_log(reader).fetch(tmp_path / "r", step=10).digest == digest_of(10, folder=tmp_path / "states")
        assert store.objects == before

    def test_a_step_that_is_not_there(self, store, tmp_path):
        save(held(store), tmp_path, 10, 20)
        with pytest.raises(MissingError, match="of step 15; the steps that it has: 10, 20"):
            commit_log(store).fetch(tmp_path / "r", step=15)
        with pytest.raises(MissingError, match="none yet"):
            commit_log(MemoryStore()).fetch(tmp_path / "r")

    def test_passes_by_damage_without_quarantine(self, store, tmp_path):
        log = held(store)
        save(log, tmp_path, 10, 20)
        del store.objects[log.manifest_of(log.replay().live[0]).files["weights.safetensors"].blob]
        before = dict(store.objects)
        assert commit_log(store).fetch(tmp_path / "r").step == 10
        with pytest.raises(UnsoundError, match="missing"):
            commit_log(store).fetch(tmp_path / "r", step=20)
        assert store.objects == before

    def test_a_reader_that_meets_a_404_takes_a_newer_commit(self, store, tmp_path):
        writer, reader = held(store, keep=1), store.client()
        save(writer, tmp_path, 10)
        done = []

        def prune_meanwhile(call):
            if call.method == "read_to" and not done:
                done.append(True)
                save(writer, tmp_path, 20)
                writer.prune()

        reader.before.append(prune_meanwhile)
        assert commit_log(reader).fetch(tmp_path / "r").step == 20


class TestProbe:
    def test_an_honest_store_keeps_nothing_of_it(self, store):
        commit_log(store).probe()
        assert store.objects == {}

    def test_a_store_that_ignores_the_condition_is_refused(self, store):
        store.honest = False
        with pytest.raises(UnsoundError, match="lets two writers create") as caught:
            commit_log(store).probe()
        assert caught.value.exit_code == 78
        assert store.objects == {}

    def test_one_that_refuses_and_replaces_all_the_same(self, store):
        def replace(key: str, data: bytes) -> bool:
            absent = key not in store.objects
            store.objects[key] = data
            return absent

        store.create = replace
        with pytest.raises(UnsoundError, match="lets two writers create"):
            commit_log(store).probe()

    def test_unless_the_job_accepts_it(self, store):
        store.honest = False
        log = quiet_log()
        commit_log(store, log=log, unsafe_single_writer=True).probe()
        assert "never start this job twice" in log.stream.getvalue()

    def test_a_lost_reply_is_no_dishonesty(self, store):
        store.after.append(fail(busy(), method="create"))
        commit_log(store).probe()

    def test_a_place_that_refuses_is_told_as_it_is(self, store):
        store.before.append(fail(ObjectDeniedError("403"), method="create"))
        with pytest.raises(ObjectDeniedError):
            commit_log(store).probe()
        assert len(store.calls) == 1


class TestTrouble:
    def test_busy_is_tried_again_and_waited_for_by_the_clock(self, store, tmp_path):
        clock = FakeClock()
        store.before.append(fail(busy(), method="write_file", times=3))
        save(held(store, clock=clock), tmp_path, 10)
        assert len(clock.slept_s) == 3

    def test_denied_is_not(self, store, tmp_path):
        log = held(store)
        store.before.append(fail(ObjectDeniedError("403"), method="write_file", times=1))
        with pytest.raises(ObjectDeniedError):
            save(log, tmp_path, 10)
        assert save(log, tmp_path, 10).step == 10

    def test_a_size_that_is_wrong_after_the_upload_is_sent_again(self, store, tmp_path):
        log = held(store)
        torn = []

        def tear(call):
            if call.method == "write_file" and not torn:
                torn.append(call.key)
                store.objects[call.key] = store.objects[call.key][:-1]

        store.after.append(tear)
        save(log, tmp_path, 10)
        assert torn
        check_invariants(store.objects, folder=tmp_path)

    def test_a_store_that_always_tears_is_refused(self, store, tmp_path):
        log = held(store)
        store.after.append(lambda call: store.objects.update({call.key: b""}) if call.method == "write_file" else None)
        with pytest.raises(StorageError, match="does not keep"):
            save(log, tmp_path, 10)
        assert kinds(store) == ["claim"]

    def test_a_store_that_refuses_and_has_nothing(self, store):
        store.create = lambda key, data: False
        with pytest.raises(StorageError, match="refuses to create this slot"):
            held(store)

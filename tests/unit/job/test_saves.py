"""Saves beside the training: what a failing store, a stop request or a rival does to a save, and who is told."""

import io
import json
import threading
from dataclasses import dataclass, field

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, busy, fail
from fakes.runs import commit_log, snapshot
from sdjob.core.errors import DeniedError, FencedError, StorageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.job.saves import Save, Saves
from sdjob.job.stop import StopRequest
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter
from sdjob.store.base import ObjectDeniedError

ALWAYS = 10**6


@dataclass
class Bench:
    """Saves over a store in memory; `said` are the log's events, `over` and `failed` what the trainer's side was told."""

    folder: object
    store: MemoryStore = field(default_factory=MemoryStore)
    notice_s: float = 10.0

    def __post_init__(self):
        self.clock, self.out, self.over, self.failed = FakeClock(), io.StringIO(), [], threading.Event()
        log = Log(mode="json", stream=self.out, clock=self.clock, secrets=())
        backoff = Backoff(attempts=2, base_s=0.0, clock=self.clock)
        self.commits = commit_log(self.store, clock=self.clock, log=log, backoff=backoff)
        self.commits.claim(attempt="one", host="here")
        self.stop = StopRequest(self.clock, notice_s=self.notice_s)
        self.ledger = LedgerWriter(self.store, attempt=1, clock=self.clock, backoff=backoff)
        self.saves = Saves(
            self.commits, self.ledger, self.stop, self.clock, log, on_over=self.over.append, on_failure=self.failed.set
        )
        self.saves.start()

    def save(self, step, *, final=False):
        facts = {"loss": 0.5, "grad_norm": 1.0}
        put = Save(step, snapshot(self.folder, step=step), facts, stall_s=0.25, final=final)
        self.saves.put(put)
        return put

    @property
    def said(self):
        return [json.loads(line)["event"] for line in self.out.getvalue().splitlines()]

    @property
    def steps(self):
        return [commit.step for commit in commit_log(self.store.client()).replay().live]

    def ledger_kinds(self):
        self.ledger.flush()
        (own,) = read_ledger(self.store.client())
        return [event["kind"] for event in own.events]


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(**options):
        made.append(Bench(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.saves.finish()


def test_a_save_is_committed_told_pruned_and_its_files_removed(bench):
    b = bench()
    puts = [b.save(step) for step in (10, 20, 30)]
    b.saves.finish()
    assert b.steps == [30, 20], "keep is 2"
    assert b.over == [10, 20, 30]
    assert (b.saves.committed_step, b.saves.failure) == (30, None)
    assert b.saves.committed_digest == commit_log(b.store.client()).replay().live[0].digest
    assert not any(put.folder.exists() for put in puts)
    assert b.saves.final is None


def test_the_last_ones_files_stay_for_publishing(bench):
    b = bench()
    put = b.save(30, final=True)
    b.saves.finish()
    assert b.saves.final is put
    assert put.folder.exists()


def test_what_must_be_there_before_a_save_is_done_before_it(bench):
    b = bench()
    found = []
    for step in (10, 20):
        b.saves.before_next(lambda: found.append(b.steps))
        b.save(step)
    b.saves.finish()
    assert found == [[], [10]]


def test_what_fails_before_a_save_ends_the_training_and_the_save_is_none(bench):
    b = bench()

    def refused() -> None:
        raise ObjectDeniedError("403")

    b.saves.before_next(refused)
    b.save(10)
    b.saves.finish()
    assert b.failed.is_set()
    assert isinstance(b.saves.failure, ObjectDeniedError)
    assert b.steps == []


def test_the_ledger_has_what_a_commit_cost(bench):
    b = bench()
    b.save(10)
    b.saves.finish()
    (own,) = read_ledger(b.store.client())
    (commit,) = [event for event in own.events if event["kind"] == "commit"]
    size_bytes = sum(len(path.read_bytes()) for path in snapshot(b.folder, step=10).iterdir())
    assert (commit["step"], commit["size_bytes"], commit["stall_s"]) == (10, size_bytes, 0.25)
    assert commit["digest"] == b.saves.committed_digest


def test_metrics_are_safe_before_their_step_is_committed(bench):
    """A step that is committed is never trained again: nobody could fill in its line of the curves later."""
    b, seen = bench(), []

    def look(call):
        if (call.method, call.key[:4]) == ("create", "log/"):
            ledgers = read_ledger(b.store.client())
            seen.append([record["step"] for ledger in ledgers for record in ledger.metrics])

    b.store.before.append(look)
    for step in range(1, 11):
        b.ledger.metrics(step, loss=0.5)
    b.save(10)
    b.saves.finish()
    assert seen[0] == list(range(1, 11))
    assert b.steps == [10]


class TestStorageTrouble:
    def test_a_ledger_that_cannot_be_written_costs_the_save(self, bench):
        b = bench()
        hook = fail(busy(), method="write", key="attempts/", times=ALWAYS)
        b.store.before.append(hook)
        b.ledger.metrics(10, loss=0.5)
        b.save(10)
        b.saves.finish()
        assert (b.steps, b.over, b.saves.failure) == ([], [10], None)
        assert "save-failed" in b.said

    def test_a_save_that_fails_is_told_and_training_goes_on(self, bench):
        b = bench()
        hook = fail(busy(), method="write_file", times=ALWAYS)
        b.store.before.append(hook)
        lost = b.save(10)
        while b.over != [10]:
            threading.Event().wait(0.005)
        assert b.saves.committed_step is None
        b.store.before.remove(hook)
        b.save(20)
        b.saves.finish()
        assert b.steps == [20]
        assert b.over == [10, 20]
        assert b.saves.failure is None
        assert not b.failed.is_set()
        assert "save-failed" in b.said
        assert b.ledger_kinds() == ["save-failed", "commit"]
        assert not lost.folder.exists(), "or scratch would fill up"

    def test_the_final_one_is_an_error(self, bench):
        b = bench()
        b.store.before.append(fail(busy(), method="write_file", times=ALWAYS))
        b.save(30, final=True)
        b.saves.finish()
        assert isinstance(b.saves.failure, StorageError)
        assert b.failed.is_set()
        assert b.saves.final is None
        assert b.over == []

    def test_a_ledger_that_cannot_be_written_costs_nothing(self, bench):
        b = bench()
        b.store.before.append(fail(busy(), method="write", key="attempts/", times=2))  # as often as it is tried
        b.save(10)
        b.saves.finish()
        assert b.saves.failure is None
        assert b.steps == [10]
        assert b.ledger_kinds() == ["commit"], "a later flush brings it"

    def test_denied_ends_the_training(self, bench):
        b = bench()
        b.store.before.append(fail(ObjectDeniedError("403"), method="write_file", times=ALWAYS))
        b.save(10)
        assert b.failed.wait(30)
        b.saves.finish()
        assert isinstance(b.saves.failure, DeniedError)

    def test_a_prune_that_storage_refuses_is_told_and_training_goes_on(self, bench):
        b = bench()
        b.store.before.append(fail(busy(), method="delete", times=ALWAYS))
        for step in (10, 20, 30):
            b.save(step)
        b.saves.finish()
        assert b.saves.failure is None
        assert b.over == [10, 20, 30]
        assert "prune-failed" in b.said

    def test_any_other_fault_of_a_prune_ends_the_training_instead_of_leaving_it_to_wait(self, bench):
        b = bench()
        b.store.before.append(fail(ObjectDeniedError("403"), method="delete", times=ALWAYS))
        for step in (10, 20, 30):
            b.save(step)
        assert b.failed.wait(30)
        b.saves.finish()
        assert isinstance(b.saves.failure, DeniedError)


def test_a_rivals_claim_ends_the_training(bench):
    b = bench()
    commit_log(b.store.client()).claim(attempt="another", host="there")
    b.save(10)
    assert b.failed.wait(30)
    b.saves.finish()
    assert isinstance(b.saves.failure, FencedError)
    assert b.steps == []


class TestNotice:
    def committed_once(self, bench, *, bytes_per_s):
        """The first commit has shown the bandwidth."""
        b = bench(notice_s=10.0)
        b.save(10)
        while b.over != [10]:
            threading.Event().wait(0.005)
        b.saves._bytes_per_s = bytes_per_s
        return b

    def size_bytes(self, b):
        return sum(path.stat().st_size for path in snapshot(b.folder, step=20).iterdir())

    @pytest.mark.parametrize(("seconds_it_takes", "committed"), [(6.9, True), (7.1, False)])
    def test_a_save_is_begun_only_if_it_fits_in_seven_tenths_of_the_notice(self, bench, seconds_it_takes, committed):
        b = self.committed_once(bench, bytes_per_s=1.0)
        b.saves._bytes_per_s = self.size_bytes(b) / seconds_it_takes
        b.stop.request()
        b.save(20)
        b.saves.finish()
        assert b.steps == ([20, 10] if committed else [10])
        assert ("save-skipped" in b.said) is not committed
        assert b.over == [10, 20], "the trainer waits for the word either way"

    @pytest.mark.parametrize(("notice_s", "committed"), [(15.0, True), (13.0, False)])
    def test_the_bandwidth_is_the_one_that_the_last_save_had(self, bench, notice_s, committed):
        """A store of five seconds a file, of which a save has two that are new: 10 s, in 0.7 of the notice or not."""
        b = bench(notice_s=notice_s)
        b.store.before.append(lambda call: b.clock.advance(5.0) if call.method == "write_file" else None)
        b.save(10)  # its third file is the same ever after: 15 s, for as many bytes
        b.save(20)
        while b.over != [10, 20]:
            threading.Event().wait(0.005)
        b.stop.request()
        b.save(30)
        b.saves.finish()
        assert (30 in b.steps) is committed
        assert ("save-skipped" in b.said) is not committed

    def test_without_a_request_a_slow_save_is_begun(self, bench):
        b = self.committed_once(bench, bytes_per_s=1e-9)
        b.save(20)
        b.saves.finish()
        assert b.steps == [20, 10]

    def test_a_bandwidth_that_is_not_known_yet_is_no_reason(self, bench):
        b = bench()
        b.stop.request()
        b.save(10)
        b.saves.finish()
        assert b.steps == [10]

    def test_nothing_is_pruned_in_the_notice(self, bench):
        b = bench()
        b.stop.request()
        for step in (10, 20, 30):
            b.save(step)
        b.saves.finish()
        assert b.steps == [30, 20, 10]

    def test_an_upload_that_hangs_is_left_behind_when_the_notice_is_over(self, bench):
        b, entered, release = bench(notice_s=10.0), threading.Event(), threading.Event()

        def hang(call):
            if call.method == "write_file":
                entered.set()
                b.clock.advance(11.0)
                release.wait(60)

        b.stop.request()
        b.store.before.append(hang)
        b.save(10)
        assert entered.wait(30)
        b.saves.finish()  # returns although the upload does not
        assert b.over == []
        release.set()

"""What is committed on the way is published beside the training, in its turn, and costs the training nothing."""

import io
import json
import threading

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from fakes.runs import snapshot
from sdjob.core.errors import DeniedError
from sdjob.core.log import Log
from sdjob.job.early import EarlyPublish
from sdjob.job.saves import Save
from sdjob.job.stop import StopRequest
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter
from unit.spec.jobs import job

TARGETS = "publish=[{to: often, every_steps: 10}, {to: seldom, every_steps: 20}, {to: at-the-end}]"


class Bench:
    def __init__(self, folder, *, error=None, hold=False):
        self.folder, self.error, self.published = folder, error, []
        self.entered, self.release = threading.Event(), threading.Event()
        if not hold:
            self.release.set()
        self.clock, self.out, self.store = FakeClock(), io.StringIO(), MemoryStore()
        self.stop = StopRequest(self.clock, notice_s=10.0)
        self.ledger = LedgerWriter(self.store, attempt=1, clock=self.clock)
        log = Log(mode="json", stream=self.out, clock=self.clock, secrets=())
        (folder / "scratch").mkdir()
        self.early = EarlyPublish(job(TARGETS), folder / "scratch", self.publish, self.stop, self.ledger, log)

    def publish(self, result, job, scratch):
        self.entered.set()
        assert self.release.wait(60)
        if self.error:
            raise self.error
        files = {path.name: path.read_bytes() for path in result.checkpoint.iterdir()}
        self.published.append((result.step, result.digest, [target.to for target in job.publish], files))

    def commit(self, step, *, final=False):
        """As Saves does: the files go as soon as this returns."""
        folder = snapshot(self.folder / "states", step=step)
        self.early.committed(Save(step, folder, {"loss": 0.5}, stall_s=0.0, final=final), f"digest-{step}")
        return {path.name: (path.read_bytes(), path.unlink())[0] for path in list(folder.iterdir())}

    def events(self):
        self.ledger.flush()
        return [event for ledger in read_ledger(self.store) for event in ledger.events]

    @property
    def said(self):
        return [json.loads(line)["event"] for line in self.out.getvalue().splitlines()]


def test_each_place_gets_what_is_committed_in_its_turn(tmp_path):
    b = Bench(tmp_path)
    files = {}
    for step in (5, 10, 20):
        files[step] = b.commit(step)
        b.early.finish()
    assert b.published == [
        (10, "digest-10", ["often"], files[10]),
        (20, "digest-20", ["often", "seldom"], files[20]),
    ]
    assert [(event["kind"], event["step"], event["to"]) for event in b.events()] == [
        ("published", 10, ["often"]),
        ("published", 20, ["often", "seldom"]),
    ]
    assert not list((tmp_path / "scratch").iterdir())


def test_the_last_step_is_left_to_the_end_of_the_run(tmp_path):
    b = Bench(tmp_path)
    b.commit(20, final=True)
    b.early.finish()
    assert b.published == []


def test_the_saves_do_not_wait_and_what_comes_too_early_is_left_out_and_said(tmp_path):
    b = Bench(tmp_path, hold=True)
    b.commit(10)
    assert b.entered.wait(60)
    b.commit(20)
    assert b.said == ["publish-skipped"]
    b.release.set()
    b.early.finish()
    b.commit(30)
    b.early.finish()
    assert [step for step, *_ in b.published] == [10, 30]


@pytest.mark.parametrize("error", [DeniedError("the token was withdrawn"), ValueError()])
def test_a_publish_that_fails_costs_itself_alone(error, tmp_path):
    b = Bench(tmp_path, error=error)
    b.commit(10)
    b.early.finish()
    assert b.said == ["publish-failed"]
    (told,) = b.events()
    assert told["why"] == (str(error) or "ValueError")
    assert not list((tmp_path / "scratch").iterdir())
    b.error = None
    b.commit(20)
    b.early.finish()
    assert [step for step, *_ in b.published] == [20]


def test_scratch_that_makes_no_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    b = Bench(tmp_path)
    files = b.commit(10)
    b.early.finish()
    assert b.published[0][3] == files


def test_scratch_that_is_full_costs_the_publish_alone(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    b = Bench(tmp_path)
    b.commit(10)
    assert b.said == ["publish-failed"]
    assert not list((tmp_path / "scratch").iterdir())


def test_nothing_is_waited_for_beyond_the_notice(tmp_path):
    b = Bench(tmp_path, hold=True)
    b.commit(10)
    assert b.entered.wait(60)
    b.stop.request()
    b.clock.advance(11.0)
    b.early.finish()
    b.release.set()


def test_after_a_stop_request_nothing_is_begun(tmp_path):
    b = Bench(tmp_path)
    b.stop.request()
    b.commit(10)
    b.early.finish()
    assert (b.published, b.said) == ([], [])

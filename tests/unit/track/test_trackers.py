"""The facade over real event files: from what an attempt says to what TensorBoard shows, and what it never shows."""

import io
import json
import threading

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, fail
from fakes.tracked import Board, board_in, png_bytes
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter
from sdjob.store.base import ObjectDeniedError
from sdjob.track.row import Picture
from sdjob.track.trackers import LEFT_S, Attempted, Trackers, no_trackers, open_trackers
from unit.spec.jobs import job

SECRET = "planted-pass-word"  # of no known form, so that a job file may hold it by mistake
OVERRIDES = ("track=[tensorboard]", "train.steps=8", "validation={prompts: [a red circle], every_steps: 4, images: 1}")


class Bench:
    """A run's place, and attempts at it one after the other: each trains, writes its ledger and feeds its trackers."""

    def __init__(self, folder) -> None:
        self.store, self.clock, self.said = MemoryStore(), FakeClock(), io.StringIO()
        self.folder = folder
        self.attempts = 0

    def open(self, *, start_step: int, overrides=OVERRIDES, environment=None) -> Trackers:
        self.attempts += 1
        self.ledger = LedgerWriter(self.store, attempt=self.attempts, clock=self.clock)
        at = Attempted("0123456789abcdef" * 4, 1_700_000_000.0, start_step, total_steps=8, is_owner=lambda: True)
        return open_trackers(
            job(*overrides),
            at=at,
            store=self.store,
            scratch=self.folder / f"attempt-{self.attempts}",
            environment=environment or {},
            clock=self.clock,
            log=Log(mode="json", stream=self.said, clock=self.clock, secrets=(SECRET,)),
            note=self.ledger.event,
            backoff=Backoff(attempts=2, base_s=0.0, clock=self.clock),
        )

    def train(self, trackers: Trackers, steps: range, *, prompt: str = "a red circle", draw: bool = True) -> None:
        for step in steps:
            metrics = {"step": step, "loss": 1.0 / step, "step_s": None}
            self.ledger.metrics(**metrics)
            trackers.metrics(step, metrics)
            if draw and step % 4 == 0:
                key = f"attempts/{self.attempts:04d}/samples/{step:08d}/00-00.png"
                self.store.objects[key] = png_bytes()
                self.ledger.event("samples", step=step, prompts=[prompt])
                trackers.samples(step, [Picture(key, "00-00", prompt)])
        self.ledger.flush()
        trackers.committed()

    def board(self) -> Board:
        return board_in(self.store, self.folder / "board")

    def events(self, kind: str) -> list[dict]:
        said = [json.loads(line) for line in self.said.getvalue().splitlines()]
        return [event for event in said if event["event"] == kind]


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def endless() -> float:
    return float("inf")


CURVE = [(step, pytest.approx(1.0 / step)) for step in range(1, 9)]
DRAWN = [(4, png_bytes()), (8, png_bytes())]


def finish(trackers: Trackers) -> None:
    trackers.finish(step=8, digest="d1ge57", seconds_left=endless)


def test_one_attempt(bench):
    trackers = bench.open(start_step=0)
    bench.train(trackers, range(1, 9))
    finish(trackers)
    trackers.stop(seconds_left=endless)  # as an attempt's end does in any case
    board = bench.board()
    assert board.scalars == {"train/loss": CURVE}
    assert board.images == {"validation/00-00": DRAWN}
    assert "steps: 8" in board.texts["job"][0][1]
    assert [event["place"] for event in bench.events("track")] == ["runs/emoji/tensorboard"]
    assert not bench.events("track-dropped")


@pytest.mark.parametrize("committed", [0, 3, 4, 5])
def test_a_lost_attempt_and_one_that_goes_on(bench, committed):
    lost = bench.open(start_step=0)
    bench.train(lost, range(1, 7))
    lost.stop(seconds_left=endless)
    trackers = bench.open(start_step=committed)
    bench.train(trackers, range(committed + 1, 9))
    finish(trackers)
    board = bench.board()
    assert (board.scalars, board.images) == ({"train/loss": CURVE}, {"validation/00-00": DRAWN})


def test_a_killed_attempt_whose_rows_nobody_has_seen(bench):
    killed = bench.open(start_step=0)
    killed.abandon()
    bench.train(killed, range(1, 7))
    trackers = bench.open(start_step=6)
    bench.train(trackers, range(7, 9))
    finish(trackers)
    board = bench.board()
    assert (board.scalars, board.images) == ({"train/loss": CURVE}, {"validation/00-00": DRAWN})


def test_a_tracker_that_a_later_attempt_adds_begins_at_step_1(bench):
    bench.train(bench.open(start_step=0, overrides=(*OVERRIDES, "track=[]")), range(1, 6))
    assert not [key for key in bench.store.objects if key.startswith("tensorboard/")]
    trackers = bench.open(start_step=5)
    bench.train(trackers, range(6, 9))
    finish(trackers)
    board = bench.board()
    assert (board.scalars, board.images) == ({"train/loss": CURVE}, {"validation/00-00": DRAWN})


def test_the_last_steps_pictures_that_only_the_next_attempt_drew(bench):
    stopped = bench.open(start_step=0)
    bench.train(stopped, range(1, 8))
    bench.train(stopped, range(8, 9), draw=False)
    stopped.stop(seconds_left=endless)
    trackers = bench.open(start_step=8)
    key = "attempts/0002/samples/00000008/00-00.png"
    bench.store.objects[key] = png_bytes()
    trackers.samples(8, [Picture(key, "00-00", "a red circle")])
    finish(trackers)
    board = bench.board()
    assert (board.scalars, board.images) == ({"train/loss": CURVE}, {"validation/00-00": DRAWN})


def test_pictures_of_which_only_some_were_written_are_shown_when_all_are(bench):
    overrides = (*OVERRIDES, "validation.images=2")
    names = ("00-00", "00-01")
    bench.train(bench.open(start_step=0, overrides=(*OVERRIDES, "track=[]")), range(1, 9), draw=False)
    bench.store.objects[f"attempts/0001/samples/00000008/{names[0]}.png"] = png_bytes()
    trackers = bench.open(start_step=8, overrides=overrides)
    pictures = [Picture(f"attempts/0002/samples/00000008/{name}.png", name, "a red circle") for name in names]
    bench.store.objects |= dict.fromkeys((picture.key for picture in pictures), png_bytes())
    trackers.samples(8, pictures)
    finish(trackers)
    assert {tag: [step for step, _ in shown] for tag, shown in bench.board().images.items()} == {
        "validation/00-00": [8],
        "validation/00-01": [8],
    }


def test_a_place_that_refuses_is_said_once_and_training_goes_on(bench):
    bench.store.before.append(fail(ObjectDeniedError("read only"), method="create", key="tensorboard/", times=100))
    trackers = bench.open(start_step=0)
    bench.train(trackers, range(1, 9))
    finish(trackers)
    trackers.stop(seconds_left=endless)
    [warning] = bench.events("track-dropped")
    assert (warning["tracker"], warning["level"]) == ("tensorboard", "warning")
    assert "read only" in warning["message"]
    bench.ledger.flush()
    [ledger] = read_ledger(bench.store)
    assert [event["tracker"] for event in ledger.events if event["kind"] == "track-dropped"] == ["tensorboard"]


def test_a_tracker_that_hangs_takes_none_of_the_notice(bench):
    hangs = threading.Event()
    bench.store.before.append(lambda call: hangs.wait() if call.key.startswith("tensorboard/") else None)
    trackers = bench.open(start_step=0)
    bench.train(trackers, range(1, 3))
    trackers.stop(seconds_left=lambda: LEFT_S)
    hangs.set()
    assert [event["tracker"] for event in bench.events("track-dropped")] == ["tensorboard"]


def test_no_secret_is_shown(bench):
    trackers = bench.open(start_step=0, overrides=(*OVERRIDES, f"validation.prompts=[a cat {SECRET}]"))
    bench.train(trackers, range(1, 9), prompt=f"a cat {SECRET}")
    finish(trackers)
    shown = b"".join(data for key, data in bench.store.objects.items() if key.startswith("tensorboard/"))
    assert SECRET.encode() not in shown
    board = bench.board()
    assert "a cat ***" in board.texts["job"][0][1]
    assert board.descriptions == {"validation/00-00": "a cat ***"}


def test_wandb_may_be_disabled(bench):
    trackers = bench.open(start_step=0, overrides=(*OVERRIDES, "track=[wandb]"), environment={"WANDB_MODE": "disabled"})
    assert trackers.feeders == ()
    assert "disabled" in bench.events("track")[0]["message"]


def test_without_a_tracker_every_call_is_nothing():
    trackers = no_trackers()
    trackers.metrics(1, {"loss": 0.5})
    trackers.samples(1, [])
    trackers.committed()
    finish(trackers)
    trackers.stop(seconds_left=endless)
    trackers.abandon()

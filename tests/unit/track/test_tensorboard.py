"""TensorBoard's files over several attempts, read by TensorBoard: every step once, whoever was killed, slow or twice there."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.memory_store import Crash, MemoryStore, busy, crash_at, fail
from fakes.tracked import board_in, png_bytes
from sdjob.core.errors import DataError, StorageError
from sdjob.core.retry import Backoff
from sdjob.store.base import ObjectDeniedError
from sdjob.store.patient import PatientStore
from sdjob.track import tensorboard_tracker
from sdjob.track.row import Final, Picture, Row
from sdjob.track.tensorboard_tracker import RETRY_S, TensorBoardTracker, file_key, pace_s
from sdjob.track.tracker import TrackerLostError

FINAL = Final(8, "d1ge57")


def row(step: int, *pictures: Picture) -> Row:
    return Row(step, 1_700_000_000.0 + step, {"train/loss": loss(step)}, pictures)


def loss(step: int) -> float:
    return 1.0 / step


def tracker(store: MemoryStore, *, clock: FakeClock | None = None, job_text: str = "name: tiny\n") -> TensorBoardTracker:
    clock = clock or FakeClock()
    return TensorBoardTracker(PatientStore(store, backoff=Backoff(attempts=3, clock=clock)), job_text, clock)


def attempt(store: MemoryStore, *, trains: range, final: Final | None = None, job_text: str = "name: tiny\n") -> None:
    """Tells what is new of it, as a feeder does."""
    made = tracker(store, job_text=job_text)
    through = made.open()
    for step in trains:
        if step > through:
            made.add(row(step))
    made.close(final)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def losses(store: MemoryStore, folder) -> list[tuple[int, float]]:
    return board_in(store, folder).scalars["train/loss"]


def expected(last: int) -> list[tuple[int, float]]:
    return [(step, pytest.approx(loss(step))) for step in range(1, last + 1)]


class TestAttempts:
    def test_a_new_run_has_nothing(self, store):
        assert tracker(store).open() == 0

    def test_a_step_that_is_trained_again_is_shown_once(self, store, tmp_path):
        attempt(store, trains=range(1, 7))
        attempt(store, trains=range(5, 9), final=FINAL)
        assert losses(store, tmp_path / "board") == expected(8)

    def test_the_end_is_told_once(self, store, tmp_path):
        attempt(store, trains=range(1, 9), final=FINAL)
        files = dict(store.objects)
        attempt(store, trains=range(9, 9), final=FINAL)
        assert store.objects == files
        assert board_in(store, tmp_path / "board").texts["result"] == [(8, "step 8, digest `d1ge57`")]

    def test_the_job_is_told_when_it_changes(self, store, tmp_path):
        attempt(store, trains=range(1, 4))
        attempt(store, trains=range(4, 6))
        attempt(store, trains=range(6, 8), job_text="name: other\n")
        texts = board_in(store, tmp_path / "board").texts["job"]
        assert texts == [(1, "```yaml\nname: tiny\n```"), (6, "```yaml\nname: other\n```")]

    @pytest.mark.parametrize("at", range(12))
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_death_at_any_call(self, store, at, moment, tmp_path):
        dying = store.client()
        getattr(dying, moment).append(crash_at(at))
        try:
            clock = FakeClock()
            made = tracker(dying, clock=clock)
            made.open()
            for step in range(1, 7):
                made.add(row(step))
                clock.advance(60)
                made.idle()
            made.close(None)
        except Crash:
            pass
        attempt(store, trains=range(1, 9), final=FINAL)
        assert losses(store, tmp_path / "board") == expected(8)

    def test_two_at_once(self, store, tmp_path):
        """A fenced attempt that has not noticed yet trains the same steps."""
        clock = FakeClock()
        old, new = tracker(store, clock=clock), tracker(store.client(), clock=clock)
        for step in range(1, 4):
            old.add(row(step))
        old.close(None)
        assert (old.open(), new.open()) == (3, 3)
        for step in range(4, 9):
            old.add(row(step))
            if step < 7:
                new.add(row(step))
        new.close(None)  # 4 to 6
        old.close(None)  # 7 and 8 alone are left
        for step in range(7, 9):
            new.add(row(step))
        new.close(FINAL)
        board = board_in(store, tmp_path / "board")
        assert board.scalars["train/loss"] == expected(8)
        assert len(board.texts["result"]) == 1

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["row", "write"])), max_size=24))
    def test_any_interleaving_of_two(self, tmp_path_factory, turns):
        store, clock = MemoryStore(), FakeClock()
        made = {name: tracker(store.client(), clock=clock) for name in "ab"}
        step = dict.fromkeys("ab", 0)
        for each in made.values():
            each.open()
        for name, what in [*turns, ("a", "row"), ("b", "row"), ("a", "write"), ("b", "write")]:
            if what == "row":
                step[name] += 1
                made[name].add(row(step[name]))
            else:
                made[name].close(None)
        assert losses(store, tmp_path_factory.mktemp("boards") / "board") == expected(max(step.values()))


class TestPace:
    def test_the_first_rows_are_seen_within_seconds(self, store, clock):
        made = tracker(store, clock=clock)
        made.open()
        made.add(row(1))
        made.idle()
        assert not store.objects
        clock.advance(10)
        made.idle()
        assert list(store.objects) == [file_key(1)]

    def test_a_week_needs_no_more_files_than_a_process_may_open(self):
        files, at_s = 0, 0.0
        while at_s < 7 * 24 * 3600:
            at_s += pace_s(files)
            files += 1
        assert files < 1000
        assert pace_s(299) <= 60.0

    def test_many_pictures_do_not_wait(self, store, clock, monkeypatch):
        monkeypatch.setattr(tensorboard_tracker, "FULL_BYTES", 1000)
        store.objects["attempts/0001/samples/00000001/00-00.png"] = png_bytes() + bytes(1000)
        made = tracker(store, clock=clock)
        made.open()
        made.add(row(1, Picture("attempts/0001/samples/00000001/00-00.png", "00-00", "a cat")))
        made.idle()
        assert file_key(1) in store.objects


class TestPictures:
    def test_with_their_prompts(self, store, tmp_path):
        key = "attempts/0001/samples/00000002/00-00.png"
        store.objects[key] = png_bytes()
        made = tracker(store)
        made.open()
        made.add(row(1))
        made.add(row(2, Picture(key, "00-00", "a red circle")))
        made.close(None)
        board = board_in(store, tmp_path / "board")
        assert board.images == {"validation/00-00": [(2, png_bytes())]}
        assert board.descriptions == {"validation/00-00": "a red circle"}
        assert board.texts["validation/prompts"] == [(2, "- 00: a red circle")]

    def test_one_that_somebody_removed_is_said_to_be_gone(self, store, tmp_path):
        made = tracker(store)
        made.open()
        made.add(row(2, Picture("attempts/0001/samples/00000002/00-00.png", "00-00", "a red circle")))
        made.close(None)
        board = board_in(store, tmp_path / "board")
        assert "attempts/0001/samples/00000002/00-00.png" in board.texts["validation/00-00/missing"][0][1]
        assert [step for step, _ in board.scalars["train/loss"]] == [2]


class TestTrouble:
    def test_storage_that_fails_for_a_while_costs_nothing(self, store, clock, tmp_path):
        store.before.append(fail(StorageError("full"), method="create"))
        made = tracker(store, clock=clock)
        made.open()
        made.add(row(1))
        clock.advance(10)
        made.idle()
        made.add(row(2))
        made.idle()
        assert not store.objects
        clock.advance(RETRY_S)
        made.idle()
        assert losses(store, tmp_path / "board") == expected(2)

    def test_a_reply_that_was_lost(self, store, tmp_path):
        store.after.append(fail(busy(), method="create"))
        attempt(store, trains=range(1, 9), final=FINAL)
        board = board_in(store, tmp_path / "board")
        assert board.scalars["train/loss"] == expected(8)
        assert len(board.texts["result"]) == 1

    def test_a_store_that_denies_is_not_asked_again(self, store, clock):
        store.before.append(fail(ObjectDeniedError("no"), method="create"))
        made = tracker(store, clock=clock)
        made.open()
        made.add(row(1))
        clock.advance(10)
        with pytest.raises(ObjectDeniedError):
            made.idle()

    def test_memory_is_bounded(self, store, clock, monkeypatch):
        monkeypatch.setattr(tensorboard_tracker, "MOST_BYTES", 1000)
        store.before.append(fail(StorageError("full"), method="create", times=100))
        store.objects["p"] = png_bytes() + bytes(1000)
        made = tracker(store, clock=clock)
        made.open()
        made.add(row(1, Picture("p", "00-00", "a cat")))
        clock.advance(10)
        with pytest.raises(TrackerLostError, match="could not be written"):
            made.idle()

    def test_a_damaged_file_is_named(self, store):
        attempt(store, trains=range(1, 4))
        store.objects[file_key(1)] = store.objects[file_key(1)][:40]
        with pytest.raises(DataError, match="tfevents"):
            tracker(store).open()

    def test_numbers_that_json_does_not_know(self, store, tmp_path):
        made = tracker(store)
        made.open()
        made.add(Row(1, 0.0, {"train/grad_norm": math.inf}))
        made.close(None)
        assert board_in(store, tmp_path / "board").scalars["train/grad_norm"] == [(1, math.inf)]

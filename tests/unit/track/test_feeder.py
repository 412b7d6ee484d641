"""One tracker's thread: what it is told, in which order, and that its trouble stays its own."""

import threading
from dataclasses import dataclass, field

import pytest

from sdjob.core.errors import StorageError
from sdjob.track import feeder as feeder_module
from sdjob.track.feeder import Committed, Feeder, Samples
from sdjob.track.row import Final, Picture, Row

FINAL = Final(9, "d1ge57")
PICTURE = Picture("attempts/0001/samples/00000004/00-00.png", "00-00", "a cat")


def row(step: int, *pictures: Picture) -> Row:
    return Row(step, float(step), {"train/loss": 1.0 / step}, pictures)


@dataclass
class NotingTracker:
    """Notes what it is told; `through` is what it shows already, `troubles` what its methods raise."""

    through: int = 0
    troubles: dict[str, Exception] = field(default_factory=dict)
    gate: threading.Event | None = None
    told: list[object] = field(default_factory=list)
    aborted: threading.Event = field(default_factory=threading.Event)
    name: str = "noting"

    def _note(self, what: str, *more: object) -> None:
        if what in self.troubles:
            raise self.troubles[what]
        if more:
            self.told.append((what, *more))

    def open(self) -> int:
        if self.gate is not None:
            self.gate.wait()
        self._note("open")
        return self.through

    def add(self, row: Row) -> None:
        self._note("add", row.step, len(row.pictures))

    def idle(self) -> None:
        self._note("idle")

    def committed(self) -> None:
        self._note("committed", True)

    def close(self, final: Final | None) -> None:
        self._note("close", final)

    def abort(self) -> None:
        self.aborted.set()


def fed(tracker, *items, past=(), final=None, due=lambda step: step % 4 == 0, limit_s=60.0) -> list[tuple[str, str]]:
    """What was said of a tracker's end."""
    dropped: list[tuple[str, str]] = []
    feeder = Feeder(tracker, lambda after: (each for each in past if each.step > after), due, lambda *why: dropped.append(why))
    feeder.start()
    for item in items:
        feeder.put(item)
    feeder.finish(final, limit_s=lambda: limit_s)
    return dropped


class TestRows:
    def test_past_then_present(self):
        tracker = NotingTracker()
        assert not fed(tracker, row(3), Committed(), past=[row(1), row(2)])
        assert tracker.told == [("add", 1, 0), ("add", 2, 0), ("add", 3, 0), ("committed", True), ("close", None)]

    def test_only_what_the_tracker_lacks(self):
        tracker = NotingTracker(through=2)
        fed(tracker, row(2), row(3), past=[row(1), row(2)])
        assert [told[1] for told in tracker.told if told[0] == "add"] == [3]

    def test_a_row_waits_for_its_pictures(self):
        tracker = NotingTracker()
        fed(tracker, row(3), row(4), Samples(4, (PICTURE,)), row(5))
        assert tracker.told[:3] == [("add", 3, 0), ("add", 4, 1), ("add", 5, 0)]

    def test_rows_wait_for_the_one_that_waits_for_its_pictures(self):
        """Which are written beside the training."""
        tracker = NotingTracker()
        rows = [
            row(4),
            row(5),
            Committed(),
            row(6),
            row(8),
            Samples(4, (PICTURE,)),
            row(9),
            Samples(8, (PICTURE, PICTURE)),
            row(10),
        ]
        fed(tracker, *rows)
        added = [("add", 4, 1), ("add", 5, 0), ("add", 6, 0), ("add", 8, 2), ("add", 9, 0), ("add", 10, 0)]
        assert tracker.told == [("committed", True), *added, ("close", None)]

    def test_pictures_that_could_not_be_written_are_not_waited_for(self):
        tracker = NotingTracker()
        fed(tracker, row(4), row(5), Samples(4, ()), row(6))
        assert tracker.told[:3] == [("add", 4, 0), ("add", 5, 0), ("add", 6, 0)]

    def test_a_row_of_the_past_without_pictures_waits_for_none(self):
        tracker = NotingTracker()
        fed(tracker, row(5), past=[row(4)])
        assert tracker.told[:2] == [("add", 4, 0), ("add", 5, 0)]

    def test_pictures_that_never_come_do_not_fill_the_memory(self, monkeypatch):
        monkeypatch.setattr(feeder_module, "MOST_WAITING", 5)
        dropped: list[tuple[str, str]] = []
        tracker, added = NotingTracker(), threading.Semaphore(0)
        tracker.idle = added.release
        feeder = Feeder(tracker, lambda after: (), lambda step: step == 1, lambda *why: dropped.append(why))
        feeder.start()
        for step in range(1, 8):
            feeder.put(row(step))
            assert added.acquire(timeout=60.0)
        feeder.finish(None, limit_s=lambda: 60.0)
        assert dropped == [("noting", "5 rows wait for the pictures before them")]
        assert tracker.told == []

    def test_what_still_waits_at_a_stop_is_left_to_the_next_attempt(self):
        stopped, resumed = NotingTracker(), NotingTracker(through=3)
        fed(stopped, row(3), row(4), row(5))
        assert stopped.told == [("add", 3, 0), ("close", None)]
        fed(resumed, Samples(4, (PICTURE,)), past=[row(4)], final=FINAL)
        assert resumed.told == [("add", 4, 1), ("close", FINAL)]

    def test_at_the_end_nothing_is_left(self):
        tracker = NotingTracker()
        fed(tracker, row(4), row(5), row(8), final=FINAL)
        assert tracker.told == [("add", 4, 0), ("add", 5, 0), ("add", 8, 0), ("close", FINAL)]

    def test_pictures_from_the_past_come_with_their_row(self):
        tracker = NotingTracker()
        fed(tracker, row(5), past=[row(4, PICTURE)])
        assert tracker.told[:2] == [("add", 4, 1), ("add", 5, 0)]


class TestTrouble:
    @pytest.mark.parametrize("where", ["open", "add", "idle", "committed", "close"])
    def test_a_tracker_that_fails_is_dropped_and_named_once(self, where):
        tracker = NotingTracker(troubles={where: StorageError("the place is gone")})
        assert fed(tracker, row(1), Committed(), row(2)) == [("noting", "the place is gone")]
        assert tracker.aborted.is_set()

    def test_a_librarys_own_error_too(self):
        assert fed(NotingTracker(troubles={"add": ValueError("odd")}), row(1)) == [("noting", "ValueError: odd")]

    def test_one_that_hangs_does_not_delay_the_end(self):
        tracker = NotingTracker(gate=threading.Event())
        assert fed(tracker, row(1), limit_s=0.0) == [("noting", "it did not end in time")]
        tracker.gate.set()

    def test_one_that_is_too_far_behind_is_dropped_and_training_never_waits(self, monkeypatch):
        monkeypatch.setattr(feeder_module, "MOST_WAITING", 5)
        tracker = NotingTracker(gate=threading.Event())
        dropped: list[tuple[str, str]] = []
        feeder = Feeder(tracker, lambda after: (), lambda step: False, lambda *why: dropped.append(why))
        feeder.start()
        for step in range(1, 20):
            feeder.put(row(step))
        assert dropped == [("noting", "it is 5 rows behind")]
        tracker.gate.set()
        feeder.finish(None, limit_s=lambda: 60.0)
        assert tracker.told == []
        assert len(dropped) == 1

    def test_one_that_is_abandoned_says_nothing(self):
        tracker = NotingTracker(gate=threading.Event())
        dropped: list[tuple[str, str]] = []
        feeder = Feeder(tracker, lambda after: (), lambda step: False, lambda *why: dropped.append(why))
        feeder.start()
        feeder.put(row(1))
        feeder.abandon()
        tracker.gate.set()
        feeder.finish(None, limit_s=lambda: 60.0)
        assert (tracker.told, dropped) == ([], [])

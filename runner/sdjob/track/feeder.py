"""One tracker's thread and its bounded queue: training never waits for a tracker, and a tracker's trouble is its own."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sdjob.core.errors import SdjobError
from sdjob.track.row import Final, Picture, Row
from sdjob.track.tracker import Tracker

MOST_WAITING = 20_000  # rows; a tracker that is further behind than this will not catch up
IDLE_S = 1.0
SLICE_S = 0.1  # how often a wait for the end asks how long it may last


@dataclass(frozen=True)
class Samples:
    """Those of a step, or none where they could not be written. They come while later steps' rows do."""

    step: int
    pictures: tuple[Picture, ...]


class Committed:
    pass


@dataclass(frozen=True)
class Close:
    final: Final | None


Item = Row | Samples | Committed | Close


@dataclass
class Feeder:
    """Feeds first the rows of earlier attempts that the tracker lacks, then those that come; a row once, never two of a step."""

    tracker: Tracker
    past: Callable[[int], Iterable[Row]]
    """The rows after a step, up to where this attempt starts."""

    expects_pictures: Callable[[int], bool]
    """Whether validation pictures belong to a step's row: it waits for them, since no tracker takes a row's rest later."""

    on_dropped: Callable[[str, str], None]
    """Told once, from the feeder's thread or the caller's: which tracker, and why."""

    _queue: "queue.Queue[Item]" = field(default_factory=lambda: queue.Queue[Item](MOST_WAITING))
    _thread: threading.Thread | None = None
    _through: int = 0
    _held: Row | None = None
    _awaits: bool = False
    """The held row's pictures are on their way."""

    _behind: deque[Row] = field(default_factory=deque[Row])
    """Rows after the held one, while it awaits them."""

    _dropped: threading.Event = field(default_factory=threading.Event)
    _first_drop: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"track-{self.tracker.name}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        if self._dropped.is_set():
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._drop(f"it is {MOST_WAITING} rows behind")

    def finish(self, final: Final | None, *, limit_s: Callable[[], float]) -> None:
        """Waits until everything is written, for as long as `limit_s`, asked again and again, leaves time."""
        self.put(Close(final))
        assert self._thread is not None
        while self._thread.is_alive() and not self._dropped.is_set() and limit_s() > 0:
            self._thread.join(SLICE_S)
        if self._thread.is_alive():
            self._drop("it did not end in time")

    def abandon(self) -> None:
        """Nothing more is written."""
        self._first_drop.acquire(blocking=False)  # what breaks off now is no news
        self._dropped.set()
        self.tracker.abort()

    def _drop(self, why: str) -> None:
        first = self._first_drop.acquire(blocking=False)
        self.abandon()
        if first:
            self.on_dropped(self.tracker.name, why)

    def _work(self) -> None:
        try:
            self._through = self.tracker.open()
            for row in self.past(self._through):
                if self._dropped.is_set():
                    return
                self._take(row)
            while not self._dropped.is_set() and self._turn():
                pass
        except SdjobError as error:
            self._drop(str(error))
        except Exception as error:  # a library's own: a tracker never ends a run
            self._drop(f"{type(error).__name__}: {error}")

    def _turn(self) -> bool:
        """False after the last."""
        try:
            item = self._queue.get(timeout=IDLE_S)
        except queue.Empty:
            self.tracker.idle()
            return True
        match item:
            case Row():
                self._come(item)
            case Samples():
                self._complete(item)
            case Committed():
                self.tracker.committed()
            case Close():
                self._close(item.final)
                return False
        self.tracker.idle()
        return True

    def _come(self, row: Row) -> None:
        if not self._awaits:
            self._take(row)
            self._awaits = self._held is not None
        elif len(self._behind) < MOST_WAITING:
            self._behind.append(row)
        else:
            self._drop(f"{MOST_WAITING} rows wait for the pictures before them")

    def _take(self, row: Row) -> None:
        if row.step <= self._through:
            return
        self._release()
        self._through = row.step
        if self.expects_pictures(row.step) and not row.pictures:
            self._held = row
        else:
            self.tracker.add(row)

    def _complete(self, samples: Samples) -> None:
        if self._held is not None and self._held.step == samples.step:
            self._held = replace(self._held, pictures=samples.pictures)
            self._release()
            self._awaits = False
            while self._behind and not self._awaits:
                self._come(self._behind.popleft())

    def _release(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self.tracker.add(held)

    def _close(self, final: Final | None) -> None:
        if final is not None:  # else the next attempt has them from the ledger, with their pictures if they are drawn by then
            for row in self._behind:
                self._take(row)
            self._release()
        self.tracker.close(final)

"""TensorBoard, whose event files lie at the run's place: `tensorboard --logdir PLACE/tensorboard` shows one run, whole.

Objects cannot be appended to, so rows go out in numbered event files, which TensorBoard reads in the order of their names
(tensorboard/backend/event_processing/directory_watcher.py). A file is created only if its number is free, and the last one
tells through which step all of them reach. So of several attempts, even at once, none shows a step that another has shown.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace

from sdjob.core.clock import Clock
from sdjob.core.errors import StorageError
from sdjob.store.base import ObjectMissingError, ObjectStore
from sdjob.track import event_file
from sdjob.track.event_file import Told
from sdjob.track.row import Final, Row
from sdjob.track.tracker import TrackerLostError

FOLDER = "tensorboard/"
FILE = re.compile(r"tensorboard/events\.out\.tfevents\.(\d{10})\.sdjob")
# (files so far, seconds between two). TensorBoard's data server keeps every file of a run open, of 1024 that a process
# usually may (https://github.com/tensorflow/tensorboard/issues/4955): 10 minutes of new points every 10 seconds, 4 hours of
# every minute, 17 of every 5, then every half hour.
PACE = ((60, 10.0), (300, 60.0), (500, 300.0))
SLOWEST_S = 1800.0
FULL_BYTES = 8 << 20  # of pictures, mostly: written before its time
MOST_BYTES = 128 << 20  # kept while storage fails
RETRY_S = 30.0


def file_key(number: int) -> str:
    return f"{FOLDER}events.out.tfevents.{number:010d}.sdjob"


def pace_s(num_files: int) -> float:
    return next((seconds for limit, seconds in PACE if num_files < limit), SLOWEST_S)


@dataclass(frozen=True)
class Waiting:
    """One step's records, not yet written."""

    row: Row
    events: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.events))


@dataclass
class TensorBoardTracker:
    store: ObjectStore
    """One that tries again by itself."""

    job_text: str
    clock: Clock
    name: str = "tensorboard"
    _number: int = 0
    """Of the last file."""

    _told: Told = field(default_factory=Told)
    _waiting: list[Waiting] = field(default_factory=list[Waiting])
    _due_s: float = 0.0

    def open(self) -> int:
        numbers = [int(found[1]) for info in self.store.list(FOLDER) if (found := FILE.fullmatch(info.key))]
        if numbers:
            self._adopt(max(numbers))
        return self._told.through

    def add(self, row: Row) -> None:
        if row.step <= self._told.through:
            return  # another attempt has been faster
        if not self._waiting:
            self._due_s = self.clock.monotonic_s() + pace_s(self._number)
        events = [event_file.scalars(row)]
        if row.pictures:
            events.append(event_file.text("validation/prompts", event_file.prompts_of(row.pictures), row=row))
            events += self._pictures(row)
        self._waiting.append(Waiting(row, tuple(events)))

    def _pictures(self, row: Row) -> list[bytes]:
        found: list[bytes] = []
        for drawn in row.pictures:
            try:
                found.append(event_file.picture(row, drawn, png=self.store.read(drawn.key)))
            except ObjectMissingError:
                found.append(event_file.text(f"validation/{drawn.name}/missing", f"`{drawn.key}` is gone.", row=row))
        return found

    def idle(self) -> None:
        size_bytes = sum(waiting.size_bytes for waiting in self._waiting)
        if not self._waiting or (self.clock.monotonic_s() < self._due_s and size_bytes < FULL_BYTES):
            return
        try:
            self._write()
        except StorageError as error:
            if size_bytes >= MOST_BYTES:
                raise TrackerLostError(f"{size_bytes >> 20} MiB could not be written: {error}") from error
            self._due_s = self.clock.monotonic_s() + RETRY_S

    def committed(self) -> None:
        """Nothing: what the ledger has is never lost, and few large files are better than many small ones."""

    def close(self, final: Final | None) -> None:
        self._write()
        while final is not None and self._told.digest != final.digest:
            row = Row(final.step, self.clock.unix_s(), {})
            words = f"step {final.step}, digest `{final.digest}`"
            self._waiting.append(Waiting(row, (event_file.text("result", words, row=row),)))
            self._write(digest=final.digest)

    def abort(self) -> None:
        """Nothing is open."""

    def _write(self, *, digest: str | None = None) -> None:
        """Until every waiting row is in a file, of ours or of an attempt that was faster."""
        while self._waiting:
            job_sha256 = hashlib.sha256(self.job_text.encode()).hexdigest()
            told = replace(self._told, through=self._waiting[-1].row.step, job_sha256=job_sha256)
            told = told if digest is None else replace(told, digest=digest)
            if self.store.create(file_key(self._number + 1), self._file(told)):
                self._number, self._told = self._number + 1, told
                self._waiting = []
            else:
                self._adopt(self._number + 1)

    def _file(self, told: Told) -> bytes:
        first = self._waiting[0].row
        events = event_file.header(told, time_s=first.time_s)
        if told.job_sha256 != self._told.job_sha256:
            events.append(event_file.text("job", f"```yaml\n{self.job_text}```", row=first))
        return b"".join([*events, *(event for waiting in self._waiting for event in waiting.events)])

    def _adopt(self, number: int) -> None:
        """Goes on behind a file that is there, perhaps our own whose reply was lost."""
        key = file_key(number)
        self._number, self._told = number, event_file.told_in(self.store.read(key), where=key)
        self._waiting = [waiting for waiting in self._waiting if waiting.row.step > self._told.through]

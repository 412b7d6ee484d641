"""Which shards of a machine's scratch were read whole and found to be what their names say, so that no start reads them again.

    SCRATCH/encodings.verified.json     by file name: size, times of the last change in ns, inode

A shard is never changed in place: it is written aside and renamed. So one that is still the same file, with the same size and
times, has the bytes that were read, and it is read again after anything has touched it. A torn write cannot hide behind the
record: a shard is on the disk (fsync) before the record says so. What came over the network is hashed in any case.
"""

import json
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdjob.encodings.shard import ShardFile
from sdjob.store.base import scratch_errors

RECORD = "encodings.verified.json"
FORMAT = 1

Mark = tuple[int, ...]


@dataclass
class Verified:
    """Several processes may have one record: what one of them overwrites of another's is verified once more."""

    folder: Path
    """Of the shards."""

    _marks: dict[str, Mark] = field(default_factory=dict[str, Mark])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def record(self) -> Path:
        return self.folder.parent / RECORD

    def read(self) -> None:
        """A record that is torn, of another format, or cannot be read says nothing; that it cannot be written is told."""
        with self._lock:
            self._marks = {**_marks_in(self.record), **self._marks}

    def is_whole(self, file: ShardFile) -> bool:
        """Reads the shard, but where it is the file that was read before."""
        path = self.folder / file.file_name
        before = _mark_of(path)
        if before is not None and self._marks.get(file.file_name) == before:
            return True
        if not file.is_whole(self.folder):
            return False
        self.note(file, mark=before)
        return True

    def note(self, file: ShardFile, *, mark: Mark | None = None) -> None:
        """Its bytes are known to be whole: those of the file that had this mark, where one is given."""
        path = self.folder / file.file_name
        now = _flushed_mark(path)
        if now is not None and mark in {None, now}:
            with self._lock:
                self._marks[file.file_name] = now

    def write(self) -> None:
        """Of shards that are gone nothing is kept."""
        there = {path.name for path in self.folder.iterdir()}
        with self._lock:
            self._marks = {name: mark for name, mark in {**_marks_in(self.record), **self._marks}.items() if name in there}
            content = {"format": FORMAT, "shards": self._marks}
        aside = self.record.with_name(f"{RECORD}.{secrets.token_hex(8)}")
        try:
            aside.write_text(json.dumps(content), encoding="utf-8")
            aside.replace(self.record)
        finally:
            aside.unlink(missing_ok=True)


def _marks_in(record: Path) -> Mapping[str, Mark]:
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return {name: tuple(mark) for name, mark in content["shards"].items()} if content["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _mark_of(path: Path) -> Mark | None:
    with scratch_errors(path), suppress(FileNotFoundError):
        return _mark(path.stat())
    return None


def _flushed_mark(path: Path) -> Mark | None:
    with scratch_errors(path), suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())
        return _mark(os.fstat(file.fileno()))
    return None


def _mark(status: os.stat_result) -> Mark:
    """The time of the inode's change too, which no program sets."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

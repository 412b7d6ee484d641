"""Commits snapshots beside the training: one thread hashes, uploads, commits, then prunes, one save after the other.

What must be in storage before a save is written by the same thread.
"""

import queue
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.policy import fits_notice
from sdjob.core.clock import Clock
from sdjob.core.errors import StorageError
from sdjob.core.log import Log
from sdjob.job.kept import Kept
from sdjob.job.stop import StopRequest
from sdjob.ledger.write import LedgerWriter

JOIN_S = 0.2  # how often a wait for the last save looks at the notice


@dataclass(frozen=True)
class Save:
    step: int
    folder: Path
    facts: dict[str, Any]
    stall_s: float
    final: bool


@dataclass
class Saves:
    commits: CommitLog
    ledger: LedgerWriter
    stop: StopRequest
    clock: Clock
    log: Log
    on_over: Callable[[int], None]
    """Told the step of each save that was committed or given up: the trainer may hand over the next."""

    on_failure: Callable[[], None]
    """Told once when `failure` is set: training must end."""

    kept: Kept | None = None
    """Where what is committed is kept for an attempt after this one."""

    failure: Exception | None = None
    committed_step: int | None = None
    committed_digest: str = ""
    final: Save | None = None
    """The last step's, once committed; its files are kept for publishing."""

    on_commit: Callable[[float, float], None] = lambda _stall_s, _upload_s: None
    """Told what each commit took: the standstill of the training, and the seconds beside it."""

    on_committed: Callable[[Save, str], None] = lambda _save, _digest: None
    """Told each save that is committed, and its digest, while its files are there."""

    _bytes_per_s: float | None = None
    _queue: "queue.Queue[Callable[[], None] | None]" = field(default_factory=queue.Queue["Callable[[], None] | None"])
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="saves", daemon=True)
        self._thread.start()

    def put(self, save: Save) -> None:
        self._queue.put(lambda: self._work_off(save))

    def before_next(self, work: Callable[[], None]) -> None:
        """Done before any save that is put after this."""
        self._queue.put(work)

    def close(self) -> None:
        """Nothing more is put."""
        self._queue.put(None)

    def finish(self) -> None:
        """Waits until all that was put is over; after a stop request no longer than the notice lasts: what is
        uploaded by half is invisible."""
        if self._thread is None:
            return
        self.close()
        while self._thread.is_alive() and self.stop.seconds_left() > 0:
            self._thread.join(JOIN_S)
        self._thread = None

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception as error:
                self.failure = error
                self.on_failure()
                return

    def _work_off(self, save: Save) -> None:
        self._save(save)
        self.on_over(save.step)
        if not save.final:
            self._prune()

    def _save(self, save: Save) -> None:
        size_bytes = sum(p.stat().st_size for p in save.folder.iterdir())
        if not self._fits(save, size_bytes):
            return
        started_s = self.clock.monotonic_s()
        try:
            # Steps that are committed are never trained again: their metrics must be safe before.
            self.ledger.flush()
            commit = self.commits.commit(save.folder, step=save.step, facts=save.facts)
        except StorageError as error:
            if save.final:
                raise
            # The training is worth more than this save: the next one may get through.
            self.log.warning("save-failed", f"step {save.step} was not saved: {error}", step=save.step)
            self.ledger.event("save-failed", step=save.step, why=str(error), stall_s=round(save.stall_s, 4))
            shutil.rmtree(save.folder)
            return
        seconds = self.clock.monotonic_s() - started_s
        self._bytes_per_s = size_bytes / max(seconds, 1e-3)
        if self.kept is not None:  # before anybody is told: who is killed from here on finds it again
            self.kept.keep(save.folder, digest=commit.digest)
        self.committed_step, self.committed_digest = save.step, commit.digest
        facts = {"step": save.step, "digest": commit.digest, "size_bytes": size_bytes, "seconds": round(seconds, 3)}
        self.ledger.event("commit", stall_s=round(save.stall_s, 4), **facts)
        self.on_commit(save.stall_s, seconds)
        with suppress(StorageError):  # the commit stands; these lines go with a later flush
            self.ledger.flush()
        self.log.event(
            "commit", f"committed step {save.step} ({size_bytes / 2**20:.1f} MiB), digest {commit.digest[:12]}", **facts
        )
        self.on_committed(save, commit.digest)
        if save.final:
            self.final = save
        else:
            shutil.rmtree(save.folder)

    def _fits(self, save: Save, size_bytes: int) -> bool:
        """After a stop request only a save that will get through in time is begun: torn ones would be invisible anyhow."""
        if not self.stop.requested or self._bytes_per_s is None:
            return True
        if fits_notice(size_bytes, bytes_per_s=self._bytes_per_s, seconds_left=self.stop.seconds_left()):
            return True
        self.log.warning("save-skipped", f"step {save.step} would not be saved within the notice", step=save.step)
        self.ledger.event("save-skipped", step=save.step, why="would not fit the notice", stall_s=round(save.stall_s, 4))
        return False

    def _prune(self) -> None:
        if self.stop.requested:
            return
        try:
            self.commits.prune()
        except StorageError as error:
            self.log.warning("prune-failed", f"old checkpoints were not pruned: {error}")

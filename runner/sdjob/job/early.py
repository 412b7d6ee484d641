"""`publish[].every_steps`: what is committed on the way is published too, beside the training.

One publish at a time: a step whose turn comes while the one before is still on its way is left out, and said so. Nothing here
ends a training, since the end publishes to every place once more.
"""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sdjob.core.log import Log
from sdjob.job.results import Result
from sdjob.job.saves import Save
from sdjob.job.stop import StopRequest
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.checkpoint import PublishSpec
from sdjob.spec.job import JobSpec

JOIN_S = 0.2  # how often a wait for the last publish looks at the notice


@dataclass
class EarlyPublish:
    job: JobSpec
    scratch: Path
    publish: Callable[[Result, JobSpec, Path], object]
    """Takes a result to the places of a job, by way of a folder."""

    stop: StopRequest
    ledger: LedgerWriter
    log: Log
    _thread: threading.Thread | None = field(default=None, init=False)

    def committed(self, save: Save, digest: str) -> None:
        """From the saves' thread, while the save's files are there."""
        targets = due(self.job, step=save.step)
        if save.final or not targets or self.stop.requested:
            return
        if self._thread is not None and self._thread.is_alive():
            self._tell("publish-skipped", step=save.step, why="the publish before it is still on its way")
            return
        folder = self.scratch / f"early-{save.step:08d}"
        try:
            result = Result(copied(save.folder, folder / "checkpoint"), save.step, digest, save.facts)
        except OSError as error:  # a full disk, which costs this publish alone
            shutil.rmtree(folder, ignore_errors=True)
            self._tell("publish-failed", step=save.step, why=str(error))
            return
        job = self.job.model_copy(update={"publish": targets})
        self._thread = threading.Thread(target=self._work, args=(result, job, folder), name="early-publish", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits for the publish that is under way; after a stop request no longer than the notice lasts."""
        while self._thread is not None and self._thread.is_alive() and self.stop.seconds_left() > 0:
            self._thread.join(JOIN_S)

    def _work(self, result: Result, job: JobSpec, folder: Path) -> None:
        try:
            self.publish(result, job, folder)
        except Exception as error:
            self._tell("publish-failed", step=result.step, why=str(error) or type(error).__name__)
        else:
            self.ledger.event("published", step=result.step, to=[target.to for target in job.publish])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, kind: str, *, step: int, why: str) -> None:
        self.log.warning(kind, f"step {step} was not published on the way: {why}", step=step)
        self.ledger.event(kind, step=step, why=why)


def due(job: JobSpec, *, step: int) -> tuple[PublishSpec, ...]:
    return tuple(target for target in job.publish if target.every_steps is not None and step % target.every_steps == 0)


def copied(snapshot: Path, into: Path) -> Path:
    """As links where the disk makes them: the snapshot itself goes with its save."""
    into.mkdir(parents=True)
    for file in snapshot.iterdir():
        try:
            os.link(file, into / file.name)
        except OSError:
            shutil.copyfile(file, into / file.name)
    return into

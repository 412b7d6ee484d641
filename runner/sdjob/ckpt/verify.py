"""Whether a run's checkpoints are whole: every byte of every live commit is read. Nothing is written to the place."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import DamagedSlot, History, LoggedCommit
from sdjob.ckpt.manifest import DamagedBlobError


@dataclass(frozen=True, kw_only=True)
class CheckedCommit:
    commit: LoggedCommit
    damage: tuple[str, ...]
    """A sentence for each damaged or missing object; empty where the commit is whole."""


@dataclass(frozen=True, kw_only=True)
class Report:
    history: History
    commits: tuple[CheckedCommit, ...]
    """The live ones, newest first."""

    @property
    def damaged_slots(self) -> tuple[DamagedSlot, ...]:
        return self.history.damaged

    @property
    def is_whole(self) -> bool:
        return not self.damaged_slots and all(not checked.damage for checked in self.commits)

    @property
    def restorable_step(self) -> int | None:
        """The step from which a new attempt would go on; None where no commit is whole."""
        return next((checked.commit.step for checked in self.commits if not checked.damage), None)


def verify(log: CommitLog) -> Report:
    """Reads each blob once, through one file in a temporary folder that is as large as the largest blob. Raises UnsoundError
    for a log with a gap, and what the store raises; damage is in the report.

    Where a run goes on meanwhile, a commit that was pruned looks damaged; so the log decides, read anew.
    """
    with tempfile.TemporaryDirectory(prefix="sdjob-verify-") as folder:
        seen: dict[str, str | None] = {}
        while True:
            history = log.replay()
            checks = [_checked(commit, log=log, scratch=Path(folder) / "blob", seen=seen) for commit in history.live]
            damaged = {checked.commit.slot for checked in checks if checked.damage}
            if not damaged or damaged <= {commit.slot for commit in log.replay().live}:
                return Report(history=history, commits=tuple(checks))


def _checked(commit: LoggedCommit, *, log: CommitLog, scratch: Path, seen: dict[str, str | None]) -> CheckedCommit:
    try:
        manifest = log.blobs.checked_manifest(commit)
    except DamagedBlobError as damage:
        return CheckedCommit(commit=commit, damage=(str(damage),))
    for file in manifest.files.values():
        if file.blob not in seen:
            seen[file.blob] = None
            try:
                log.blobs.download(file, scratch)
            except DamagedBlobError as damage:
                seen[file.blob] = str(damage)
    found = (seen[file.blob] for file in manifest.files.values())
    return CheckedCommit(commit=commit, damage=tuple(why for why in found if why))

"""An attempt's own folder on scratch: locked while the attempt lives, swept by a later one once it is dead."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sdjob.core.errors import StorageError
from sdjob.core.owned import owned_folder, sweep

ELSEWHERE = "Make room or permit it there, or set run.scratch (or SDJOB_SCRATCH) to another folder."


def run_folder(root: Path, *, key: str) -> Path:
    """The run's folder below the scratch root; only this user may look inside."""
    folder = root / key
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot make the scratch folder: {error.strerror}.", where=str(folder), next_step=ELSEWHERE
        ) from error
    return folder


@contextmanager
def attempt_folder(run: Path, *, epoch: int, nonce: str) -> Generator[Path]:
    sweep(run, pattern="attempt-*")
    with owned_folder(run / f"attempt-{epoch:04d}-{nonce}") as folder:
        yield folder


@contextmanager
def full_disk_errors(folder: Path) -> Generator[None]:
    """A full disk is no fault of sdjob, on whichever small file in the folder it shows first."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise StorageError("the disk of scratch is full.", where=str(error.filename or folder), next_step=ELSEWHERE) from error

"""An attempt's own folder on scratch: locked while the attempt lives, swept by a later one once it is dead."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sdjob.core.errors import StorageError

LOCK = "lock"


def run_folder(root: Path, *, key: str) -> Path:
    """The run's folder below the scratch root; only this user may look inside."""
    folder = root / key
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot make the scratch folder: {error}", where=str(folder), next_step="Set SDJOB_SCRATCH."
        ) from error
    return folder


@contextmanager
def attempt_folder(run: Path, *, epoch: int, nonce: str) -> Generator[Path]:
    sweep(run)
    # Locked under another name first: a sweep on the same machine must never find it unlocked.
    unnamed, folder = run / f"new-{nonce}", run / f"attempt-{epoch:04d}-{nonce}"
    unnamed.mkdir()
    lock = _locked(unnamed)
    assert lock is not None
    unnamed.rename(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what stays is swept by a later attempt
        os.close(lock)


def sweep(run: Path) -> None:
    """Removes the folders of attempts whose process is gone: the kernel has let go of their locks."""
    for folder in run.glob("attempt-*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A file descriptor that holds the folder's lock; None where a living process has it, or has swept the folder away."""
    try:
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor

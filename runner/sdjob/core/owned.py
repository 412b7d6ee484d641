"""A folder that belongs to one living process: locked while it lives, swept by a later one once the kernel has let go."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
UNNAMED = "new-"


@contextmanager
def owned_folder(path: Path) -> Generator[Path]:
    """Makes the folder, and removes it at the end; after a sudden death it is left to `sweep`."""
    # Locked under another name first: a sweep on the same machine must never find it unlocked.
    unnamed = path.with_name(f"{UNNAMED}{secrets.token_hex(8)}")
    unnamed.mkdir()
    lock = try_lock(unnamed / LOCK)
    assert lock is not None
    unnamed.rename(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # what stays is swept later
        os.close(lock)


def sweep(root: Path, *, pattern: str) -> None:
    """Removes such folders of processes that are gone."""
    for folder in root.glob(pattern):
        lock = try_lock(folder / LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def try_lock(path: Path) -> int | None:
    """A file descriptor that holds the file's lock until it is closed; None where another process has it, or where the folder
    has been swept away."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor

"""An attempt's own folder on scratch: locked while the attempt lives, swept by a later one once it is dead."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sdjob.core.errors import StorageError
from sdjob.core.owned import owned_folder, sweep


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
    sweep(run, pattern="attempt-*")
    with owned_folder(run / f"attempt-{epoch:04d}-{nonce}") as folder:
        yield folder

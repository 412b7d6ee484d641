"""A file's bytes, read again after a failure: disks under a cluster's pods drop out for moments."""

from pathlib import Path

from sdjob.core.errors import DeniedError, StorageError
from sdjob.core.retry import Backoff, with_retries

# Two reads: what fails twice is left to the next attempt of the job (exit 74), which may be on another machine.
READ_AGAIN = Backoff(attempts=2)


class FileGoneError(StorageError):
    """There is no file under this name: for the scan a bad picture, for a later read a fault of the storage."""


def read_bytes(path: Path, *, backoff: Backoff = READ_AGAIN) -> bytes:
    """Raises FileGoneError, DeniedError, or StorageError when the last read failed as well."""
    try:
        return with_retries(path.read_bytes, transient=(OSError,), backoff=backoff)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileGoneError("is missing.", where=str(path)) from error
    except PermissionError as error:
        raise DeniedError("may not be read.", where=str(path), next_step="Let this user read the file.") from error
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror or error}.", where=str(path)) from error

"""How the run ended, in the file from which `kubectl describe pod` and `sdjob status` read it."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sdjob.core.errors import SdjobError, StoppedError
from sdjob.core.log import Log, redacted

# https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/#customizing-the-termination-message:
# the kubelet mounts an empty file there, on a read-only root too, and keeps its first 4096 bytes.
FILE = Path("/dev/termination-log")
FILE_NAME = "SDJOB_TERMINATION_LOG"  # for a pod whose terminationMessagePath is another
MOST_BYTES = 4096


@contextmanager
def last_words(*, environment: Mapping[str, str], log: Log) -> Generator[None]:
    """Writes the sentence of the error that ends the block."""
    try:
        yield
    except SdjobError as error:
        leave(str(error), environment=environment, log=log)
        raise
    except KeyboardInterrupt:
        leave(str(StoppedError("stopped on request.")), environment=environment, log=log)
        raise
    except Exception as error:
        leave(f"this is a fault of sdjob: {type(error).__name__}: {error}", environment=environment, log=log)
        raise


def leave(sentence: str, *, environment: Mapping[str, str], log: Log) -> None:
    """Outside a pod there is no such file, and nothing is written."""
    path = Path(environment.get(FILE_NAME) or FILE)
    if not path.is_file() or not os.access(path, os.W_OK):
        return
    try:
        path.write_bytes(shortened(redacted(sentence, secrets=log.secrets)))
    except OSError as error:  # how the run ended counts for more than where that is read
        log.warning("last-words", f"{path} could not be written: {error.strerror}")


def shortened(text: str) -> bytes:
    """The beginning, which says what is wrong and where; never half a character."""
    data = text.encode()
    if len(data) <= MOST_BYTES:
        return data
    end = b"..."
    return data[: MOST_BYTES - len(end)].decode(errors="ignore").encode() + end

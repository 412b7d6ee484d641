"""What the libraries raise for a model's files that do not fit together, in this package's errors."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from sdjob.core.errors import DataError

# Missing files are OSErrors, tensors of other shapes ValueErrors or RuntimeErrors, odd configurations the rest.
MISFITS = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError)
SHOWN_LETTERS = 300


@contextmanager
def model_errors(folder: Path) -> Generator[None]:
    """Around loading alone: a DataError (65) instead of a traceback."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        told = " ".join(str(error).split())[:SHOWN_LETTERS].rstrip(". ")
        raise DataError(
            f"the model cannot be loaded: {told}.",
            where=str(folder),
            next_step="Its weights and its configuration must belong together: take all of its files again.",
        ) from error

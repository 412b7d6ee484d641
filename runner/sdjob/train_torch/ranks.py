"""Processes that train together: a collective that fails among several machines is a peer's end and not this process' fault."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch

from sdjob.core.errors import PeerLostError


def num_machines(environment: Mapping[str, str] = os.environ) -> int:
    return int(environment.get("WORLD_SIZE", "1")) // int(environment.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def peers_answer() -> Generator[None]:
    """Around what waits for all ranks. On one machine the parent sees all of them, and who was the first to fail."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or num_machines() == 1:
            raise
        raise PeerLostError(f"another machine does not answer: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

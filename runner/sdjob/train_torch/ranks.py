"""Processes that train together: a collective that fails among several machines is a peer's end and not this process' fault."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch

from sdjob.core.errors import PeerLostError


def on_several_machines(environment: Mapping[str, str] = os.environ) -> bool:
    return environment.get("WORLD_SIZE") != environment.get("LOCAL_WORLD_SIZE")


@contextmanager
def peers_answer() -> Generator[None]:
    """Around what waits for all ranks. On one machine the parent sees all of them, and who was the first to fail."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not on_several_machines():
            raise
        raise PeerLostError(f"another machine does not answer: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""A store for each test of this folder, where it has none of its own."""

import pytest

from fakes.memory_store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()

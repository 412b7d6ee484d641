"""The stores that the contract is held against, each a row: how to open an empty place of it, and what it can do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.memory_store import MemoryStore
from sdjob.core.retry import Backoff
from sdjob.spec.places import Place
from sdjob.store.base import ObjectStore
from sdjob.store.gcs import GcsStore
from sdjob.store.hub import HubStore
from sdjob.store.local import LocalStore
from sdjob.store.ranged import RangedReader
from sdjob.store.s3 import S3Store

PREFIX = "runs/x"
RANGE_BYTES = 1024 * 1024  # small, so that a small file is several ranges
IN_ONE_BYTES = 3 * RANGE_BYTES
S3_PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes for a part that is not the last
GCS_PART_BYTES = 1024 * 1024
PAGE_KEYS = 7


@dataclass(frozen=True)
class Row:
    open: Callable[[pytest.FixtureRequest], ObjectStore]
    creates: bool = True
    """Whether it has a write that is refused where the object is there."""


def reader() -> RangedReader:
    return RangedReader(range_bytes=RANGE_BYTES, in_one_bytes=IN_ONE_BYTES, backoff=Backoff(attempts=4, base_s=0.001))


def reach(request: pytest.FixtureRequest, environment: dict[str, str]) -> None:
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def s3_store(bucket: str, *, prefix: str = PREFIX, read_timeout_s: float = 30.0) -> S3Store:
    place = Place("s3", bucket, prefix)
    return S3Store(place, part_bytes=S3_PART_BYTES, page_keys=PAGE_KEYS, read_timeout_s=read_timeout_s, reader=reader())


def gcs_store(bucket: str, *, prefix: str = PREFIX, read_timeout_s: float = 30.0) -> GcsStore:
    place = Place("gs", bucket, prefix)
    return GcsStore(place, part_bytes=GCS_PART_BYTES, page_keys=PAGE_KEYS, read_timeout_s=read_timeout_s, reader=reader())


def _local(request: pytest.FixtureRequest) -> ObjectStore:
    folder: Path = request.getfixturevalue("tmp_path")
    return LocalStore(folder / "place")


def _on(fixture: str, make: Callable[[str], ObjectStore]) -> Callable[[pytest.FixtureRequest], ObjectStore]:
    def open_row(request: pytest.FixtureRequest) -> ObjectStore:
        server = request.getfixturevalue(fixture)
        reach(request, server.environment)
        return make(server.new_bucket())

    return open_row


def _hub(request: pytest.FixtureRequest) -> ObjectStore:
    desk = request.getfixturevalue("desk")
    name = f"me/contract-{len(desk.hub.repositories)}"
    desk.hub.new_repo("models", name, files={})
    return HubStore(Place("hf", name))


ROWS = {
    "local": Row(_local),
    "memory": Row(lambda request: MemoryStore()),
    "s3": Row(_on("seaweed", s3_store)),
    "s3-moto": Row(_on("moto", s3_store)),
    "gcs": Row(_on("gcs_server", gcs_store)),
    "hf": Row(_hub, creates=False),
}

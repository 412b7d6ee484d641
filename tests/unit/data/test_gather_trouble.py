"""Gathering that is disturbed, and that ends before its end: what is told, and what is left behind."""

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fakes.data_sets import as_folder, as_parquet, as_shards, as_tar, drawn_pairs
from fakes.memory_store import MemoryStore, busy, fail
from sdjob.core.errors import DataError, MissingError, StoppedError, StorageError
from sdjob.data.index import scan
from unit.data.gathering import Machine, fetched

PAIRS = drawn_pairs(8)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


class TestTrouble:
    def test_a_busy_store_is_asked_again(self, machine: Machine):
        store = MemoryStore(as_parquet(PAIRS))
        store.before += [fail(busy(), method=method, times=2) for method in ("list", "stat", "read_to")]
        assert len(machine.seen(store)) == 8

    def test_nothing_is_there(self, machine: Machine, tmp_path: Path):
        with pytest.raises(MissingError, match=r"s3://bucket/data: holds no files"):
            machine.gather(MemoryStore())
        with pytest.raises(MissingError, match="does not exist"):
            machine.gather(tmp_path / "nowhere")

    @pytest.mark.parametrize("max_samples", [None, 2])
    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_a_full_disk_is_told_before_anything_is_fetched(
        self, machine: Machine, make: Any, max_samples: int | None, monkeypatch: pytest.MonkeyPatch
    ):
        store = MemoryStore(make(PAIRS))
        usage = type("Usage", (), {"free": 60})
        monkeypatch.setattr("sdjob.data.shelf.shutil.disk_usage", lambda _: usage)
        with pytest.raises(StorageError, match=r"needs 0\.0 GB more, 0\.0 GB are free") as caught:
            machine.seen(store, max_samples=max_samples)
        assert caught.value.exit_code == 74
        assert fetched(store) == []

    def test_a_disk_that_fills_up(self, machine: Machine, monkeypatch: pytest.MonkeyPatch):
        def full(self: Path, target: Path) -> None:
            if "pictures" in target.parts:
                raise OSError(28, "No space left on device")
            os.replace(self, target)  # noqa: PTH105, the method itself is replaced here

        monkeypatch.setattr("sdjob.data.shelf.Path.replace", full)
        with pytest.raises(StorageError, match=r"No space left on device; .* GB are free"):
            machine.seen(MemoryStore(as_parquet(PAIRS)))

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_a_stop_is_heard(self, machine: Machine, make: Any):
        def stop() -> None:
            raise StoppedError("asked")

        with pytest.raises(StoppedError, match="asked"):
            list(machine.gather(MemoryStore(make(PAIRS)), check_stop=stop).records)

    def test_two_at_once(self, machine: Machine):
        store = MemoryStore(as_parquet(PAIRS))
        one, other = iter(machine.gather(store).records), iter(machine.gather(store).records)
        assert [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]] == []
        assert len(machine.seen(store)) == 8


class TestTheEnd:
    """However a scan ends, nothing goes on in a thread or lies aside, though an error still holds on to its frames."""

    def check_over(self, machine: Machine) -> None:
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("gather", "transfer", "scan"))] == []
        assert list(machine.scratch.glob("data/aside-*")) == []

    @pytest.fixture(autouse=True)
    def _no_collector(self):
        gc.disable()
        yield
        gc.enable()

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("name", ["data/train-00001-of-00004.parquet", "data/train-00003-of-00004.parquet"])
    def test_after_an_error(self, machine: Machine, workers: int, name: str):
        pictures = machine.gather(MemoryStore(as_shards(PAIRS, count=4) | {name: b"torn"}))
        with pytest.raises(DataError) as caught:
            scan(pictures.folder, records=pictures.records, workers=workers)
        self.check_over(machine)
        assert caught.value.__traceback__ is not None

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("make", [as_folder, as_tar, lambda pairs: as_shards(pairs, count=4)])
    def test_after_a_stop(self, machine: Machine, workers: int, make: Any):
        def stop(done: int, of: int | None) -> None:
            raise StoppedError("asked")

        pictures = machine.gather(MemoryStore(make(PAIRS)))
        with pytest.raises(StoppedError) as caught:
            scan(pictures.folder, records=pictures.records, workers=workers, on_progress=stop)
        self.check_over(machine)
        assert caught.value.__traceback__ is not None

    def test_after_enough(self, machine: Machine):
        machine.scan(MemoryStore(as_shards(PAIRS, count=4)), max_samples=1)
        self.check_over(machine)

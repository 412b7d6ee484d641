"""Files of a distant place on scratch: fetched once, verified at every use."""

import fcntl
import io
import os
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, busy, fail
from sdjob.core.errors import MissingError, StoppedError, StorageError
from sdjob.core.log import Log
from sdjob.job import fetch as module
from sdjob.job.fetch import Here, fetch, file_sha256
from sdjob.spec.places import Place

PLACE = Place("s3", "bucket", "models/base")
FILES = {"model_index.json": b"{}", "unet/config.json": b"{ }", "unet/model.safetensors": bytes(1000), "README.md": b"card"}


@pytest.fixture
def store(monkeypatch):
    made = MemoryStore(dict(FILES))
    monkeypatch.setattr(module, "open_store", lambda place: made)
    return made


def here(scratch, *, check_stop=lambda: None, clock=None):
    log = Log(mode="text", stream=io.StringIO(), secrets=())
    return Here(Path(scratch), check_stop=check_stop, clock=clock or FakeClock(), log=log)


def chosen(names):
    return sorted(name for name in names if name != "README.md")


def brought(scratch, **settings):
    return fetch(PLACE, choose=chosen, here=here(scratch, **settings), field="model.source")


def reads(store):
    return [call.key for call in store.calls if call.method in {"read", "read_to"}]


def test_the_chosen_files_and_no_others(store, tmp_path):
    found = brought(tmp_path)
    there = {p.relative_to(found.folder).as_posix(): p.read_bytes() for p in found.folder.rglob("*") if p.is_file()}
    assert there == {name: data for name, data in FILES.items() if name != "README.md"}
    assert found.hashes == {name: file_sha256(found.folder / name) for name in there}


def test_the_next_attempt_finds_them_again(store, tmp_path):
    first = brought(tmp_path)
    store.calls.clear()
    assert brought(tmp_path) == first
    assert reads(store) == []


def test_new_content_is_a_new_folder(store, tmp_path):
    first = brought(tmp_path)
    store.write("unet/config.json", b"{ changed }")
    second = brought(tmp_path)
    assert second.folder != first.folder
    assert (second.folder / "unet/config.json").read_bytes() == b"{ changed }"


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_what_was_damaged_on_scratch_is_fetched_again(store, tmp_path, damage):
    first = brought(tmp_path)
    file = first.folder / "unet/model.safetensors"
    file.unlink() if damage == "remove" else file.write_bytes(bytes(999) + b"x")
    assert brought(tmp_path) == first
    assert file.read_bytes() == FILES["unet/model.safetensors"]


def test_a_fetch_that_was_cut_off_leaves_nothing_that_looks_whole(store, tmp_path):
    store.before.append(fail(StorageError("gone"), method="read_to", key="unet/model"))
    with pytest.raises(StorageError, match="gone"):
        brought(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
    assert brought(tmp_path).hashes


def test_a_killed_process_leaves_a_folder_that_the_next_one_sweeps(store, tmp_path):
    first = brought(tmp_path)
    left = first.folder.with_name(f"{first.folder.name}.new-dead")
    left.mkdir()
    (left / "part").write_bytes(b"x")
    (first.folder / "model_index.json").unlink()
    brought(tmp_path)
    assert not left.exists()


def test_busy_storage_is_waited_for(store, tmp_path):
    store.before.append(fail(busy(), method="list", times=2))
    store.before.append(fail(busy(), method="read_to", times=1))
    assert brought(tmp_path).hashes


def test_an_empty_place(store, tmp_path):
    store.objects.clear()
    with pytest.raises(MissingError, match="holds nothing") as caught:
        brought(tmp_path)
    assert caught.value.where == "model.source"


def test_no_room(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    with pytest.raises(StorageError, match=r"are to be fetched\. Make room, or set run\.scratch"):
        brought(tmp_path)


def test_while_another_process_fetches_a_stop_is_heard(store, tmp_path):
    folder = brought(tmp_path).folder
    descriptor = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    looks = []

    def check_stop():
        looks.append(1)
        if len(looks) == 3:
            raise StoppedError("asked")

    with pytest.raises(StoppedError):
        brought(tmp_path, check_stop=check_stop)
    os.close(descriptor)
    assert brought(tmp_path).folder == folder

"""The folder as a store: durability, races, permissions, what a killed process leaves."""

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdjob.core.errors import StorageError, UnsoundError, UsageError
from sdjob.spec.places import parse_place
from sdjob.store.base import TEMPORARY_FOLDER, ObjectDeniedError, ObjectMissingError, TransientStoreError
from sdjob.store.local import ABANDONED_AFTER_S, LocalStore
from sdjob.store.open import open_store

RACER = """
import sys
from pathlib import Path
from sdjob.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
Path(sys.argv[1] + "-" + sys.argv[2]).touch()
while not Path(sys.argv[1] + "-go").exists():
    pass
print(*[number for number in range(100) if store.create(f"log/{number}", sys.argv[2].encode())])
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "place")


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was synced and published, in order."""
    calls: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def name_of(descriptor: int) -> str:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return "aside" if path.parent.name == TEMPORARY_FOLDER else path.name

    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(f"sync {name_of(fd)}"), fsync(fd)))
    monkeypatch.setattr(os, "link", lambda a, b: (calls.append(f"link {Path(b).name}"), link(a, b)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(f"replace {Path(b).name}"), replace(a, b)))
    return calls


def failing(number: int):
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


class TestDurability:
    def test_bytes_then_name_then_folder(self, store, system_calls):
        store.create("log/0", b"1")
        system_calls.clear()
        store.create("log/1", b"1")
        assert system_calls == ["sync aside", "link 1", "sync log"]

    def test_write_and_write_file_too(self, store, system_calls, tmp_path):
        (tmp_path / "source").write_bytes(b"1")
        store.write("a/x", b"1")
        system_calls.clear()
        store.write("a/y", b"1")
        store.write_file("a/z", tmp_path / "source")
        assert system_calls == ["sync aside", "replace y", "sync a", "sync aside", "replace z", "sync a"]

    def test_a_new_folder_is_synced_into_its_parent(self, store, system_calls):
        store.write("blob/1/x", b"1")
        assert system_calls.index("sync place") < system_calls.index("sync blob") < system_calls.index("replace x")


class TestTemporaries:
    def test_are_never_listed_and_never_left(self, store, tmp_path):
        store.write("a", b"1")
        store.create("a", b"2")
        assert list((tmp_path / "place" / TEMPORARY_FOLDER).iterdir()) == []
        (tmp_path / "place" / TEMPORARY_FOLDER / "torn").write_bytes(b"half")
        assert [info.key for info in store.list("")] == ["a"]

    def test_a_write_that_fails_leaves_nothing(self, store, tmp_path, monkeypatch):
        store.write("a", b"1")
        monkeypatch.setattr(os, "replace", failing(errno.EIO))
        with pytest.raises(StorageError):
            store.write("a", b"2")
        assert store.read("a") == b"1"
        assert list((tmp_path / "place" / TEMPORARY_FOLDER).iterdir()) == []

    def test_what_a_killed_process_left_goes_after_a_day_and_not_before(self, store, tmp_path):
        folder = tmp_path / "place" / TEMPORARY_FOLDER
        folder.mkdir(parents=True)
        for name, age_s in (("old", ABANDONED_AFTER_S + 60), ("young", ABANDONED_AFTER_S - 60)):
            (folder / name).write_bytes(b"half")
            now_s = (folder / name).stat().st_mtime
            os.utime(folder / name, (now_s - age_s, now_s - age_s))
        store.write("a", b"1")
        assert [path.name for path in folder.iterdir()] == ["young"]


class TestRaces:
    def test_one_winner_of_many_threads(self, tmp_path):
        wins: list[tuple[int, int]] = []
        barrier = threading.Barrier(8)

        def race(racer: int) -> None:
            store = LocalStore(tmp_path / "place")
            barrier.wait()
            wins.extend((number, racer) for number in range(40) if store.create(f"log/{number}", str(racer).encode()))

        threads = [threading.Thread(target=race, args=(racer,)) for racer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(number for number, _ in wins) == list(range(40))
        assert all(LocalStore(tmp_path / "place").read(f"log/{number}") == str(racer).encode() for number, racer in wins)

    def test_one_winner_of_two_processes(self, tmp_path):
        place = tmp_path / "place"
        racers = [
            subprocess.Popen([sys.executable, "-c", RACER, str(place), name], stdout=subprocess.PIPE, text=True) for name in "ab"
        ]
        while not all(Path(f"{place}-{name}").exists() for name in "ab"):
            assert all(racer.poll() is None for racer in racers)
        Path(f"{place}-go").touch()
        wins = [[int(number) for number in racer.communicate()[0].split()] for racer in racers]
        assert [racer.returncode for racer in racers] == [0, 0]
        assert sorted(wins[0] + wins[1]) == list(range(100))
        for name, numbers in zip("ab", wins, strict=True):
            assert all(LocalStore(place).read(f"log/{number}") == name.encode() for number in numbers)


class TestListing:
    def test_follows_a_linked_folder(self, store, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "0").write_bytes(b"1")
        (tmp_path / "place").mkdir()
        (tmp_path / "place" / "log").symlink_to(tmp_path / "elsewhere")
        assert [info.key for info in store.list("log/")] == [info.key for info in store.list("")] == ["log/0"]

    def test_reading_makes_no_folder(self, store, tmp_path):
        list(store.list("log/"))
        assert not (tmp_path / "place").exists()

    def test_what_may_not_be_listed_is_not_empty(self, store, monkeypatch):
        monkeypatch.setattr(os, "scandir", failing(errno.EACCES))
        with pytest.raises(ObjectDeniedError):
            list(store.list("log/"))


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "kind", "says"),
        [
            (errno.ENOENT, ObjectMissingError, "no such object"),
            (errno.EACCES, ObjectDeniedError, "refuses"),
            (errno.EROFS, ObjectDeniedError, "refuses"),
            (errno.ENOSPC, StorageError, "disk is full"),
            (errno.EIO, StorageError, "failed"),
            (errno.ESTALE, TransientStoreError, "busy"),
        ],
    )
    def test_each_has_its_class_and_names_the_object(self, store, monkeypatch, number, kind, says):
        monkeypatch.setattr(Path, "read_bytes", failing(number))
        with pytest.raises(kind, match=says) as caught:
            store.read("log/0")
        assert str(caught.value).startswith("file:///")
        assert "place/log/0" in str(caught.value)

    def test_a_full_disk_is_not_tried_again(self, store, monkeypatch):
        monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(StorageError) as caught:
            store.write("a", b"1")
        assert not isinstance(caught.value, TransientStoreError)

    def test_scratch_that_fails_is_no_missing_object(self, store, tmp_path):
        store.write("a", b"1")
        with pytest.raises(StorageError, match="scratch failed"):
            store.read_to("a", tmp_path / "no folder" / "x")
        with pytest.raises(StorageError, match="scratch failed"):
            store.write_file("b", tmp_path / "never")

    def test_a_file_system_without_hard_links_is_refused(self, store, monkeypatch):
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
        with pytest.raises(UnsoundError, match="no hard links"):
            store.create("a", b"1")

    def test_a_file_in_the_way_of_a_folder(self, store):
        store.write("a", b"1")
        with pytest.raises(UsageError, match="a file stands where a folder is needed"):
            store.create("a/b", b"1")
        with pytest.raises(ObjectMissingError):
            store.read("a/b")


class TestOpen:
    def test_a_folder(self, tmp_path):
        store = open_store(parse_place("runs/x", base=tmp_path))
        store.write("a", b"1")
        assert (tmp_path / "runs/x/a").read_bytes() == b"1"
        assert store.uri == (tmp_path / "runs/x").as_uri()

    @pytest.mark.parametrize("text", ["s3://bucket/x", "gs://bucket/x"])
    def test_a_bucket_is_asked_nothing(self, text, tmp_path, monkeypatch):
        monkeypatch.setattr(socket, "socket", failing(errno.EACCES))
        for name in ("AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
            monkeypatch.setenv(name, "never-looked-at")
        assert open_store(parse_place(text, base=tmp_path)).uri == text

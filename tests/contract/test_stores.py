"""What every object store must do: one class, every store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.memory_store import MemoryStore
from sdjob.core.errors import UsageError
from sdjob.store.base import ObjectMissingError, ObjectStore
from sdjob.store.local import LocalStore

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "local": lambda folder: LocalStore(folder / "place"),
    "memory": lambda folder: MemoryStore(),
}
LEAVING = ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "a\\b", ".sdjob-tmp/a"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return STORES[request.param](tmp_path)


class TestObjectStore:
    def test_a_place_that_was_never_written_to_is_empty(self, store):
        assert list(store.list("")) == []
        assert list(store.list("log/")) == []
        assert store.stat("a") is None

    def test_what_was_written_is_read(self, store):
        store.write("a/b", b"one")
        assert store.read("a/b") == b"one"
        store.write("a/b", b"second")
        assert store.read("a/b") == b"second"

    def test_an_empty_object_is_an_object(self, store):
        store.write("empty", b"")
        assert store.read("empty") == b""
        assert store.stat("empty").size_bytes == 0

    def test_create_only_where_there_is_none(self, store):
        assert store.create("log/0", b"first") is True
        assert store.create("log/0", b"second") is False
        assert store.read("log/0") == b"first"

    def test_create_refuses_what_write_made(self, store):
        store.write("a", b"first")
        assert store.create("a", b"second") is False

    def test_create_again_after_delete(self, store):
        store.create("a", b"first")
        store.delete(["a"])
        assert store.create("a", b"second") is True

    def test_a_file_goes_in_and_comes_out(self, store, tmp_path):
        source, target = tmp_path / "source", tmp_path / "target"
        data = bytes(range(256)) * 40_000  # several chunks
        source.write_bytes(data)
        store.write_file("blob/1/x", source)
        store.write_file("blob/1/x", source)
        seen = bytearray()
        store.read_to("blob/1/x", target, on_chunk=seen.extend)
        assert target.read_bytes() == data == bytes(seen)
        assert source.read_bytes() == data

    def test_read_to_replaces_a_longer_file(self, store, tmp_path):
        (tmp_path / "target").write_bytes(b"x" * 100)
        store.write("a", b"short")
        store.read_to("a", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"short"

    def test_missing_is_said_so(self, store, tmp_path):
        with pytest.raises(ObjectMissingError):
            store.read("a/b")
        with pytest.raises(ObjectMissingError):
            store.read_to("a/b", tmp_path / "target")

    def test_a_folder_is_no_object(self, store):
        store.write("a/b", b"1")
        assert store.stat("a") is None
        with pytest.raises(ObjectMissingError):
            store.read("a")

    def test_listing_has_every_object_of_the_prefix_and_its_size(self, store):
        for key in ("log/2", "log/10", "logs/1", "blob/1/x", "blob/12/y", "lo"):
            store.write(key, key.encode())
        assert {(info.key, info.size_bytes) for info in store.list("log/")} == {("log/2", 5), ("log/10", 6)}
        assert {info.key for info in store.list("blob/1")} == {"blob/1/x", "blob/12/y"}
        assert {info.key for info in store.list("lo")} == {"log/2", "log/10", "logs/1", "lo"}
        assert len(list(store.list(""))) == 6
        assert list(store.list("none/")) == []

    def test_delete_takes_what_is_there(self, store):
        store.write("a", b"1")
        store.write("b/c", b"1")
        store.delete(iter(["a", "never", "b/c", "b/d/e"]))
        assert list(store.list("")) == []
        store.delete([])

    @pytest.mark.parametrize("key", LEAVING)
    def test_a_key_that_could_leave_the_place_is_refused(self, store, key, tmp_path):
        calls = [
            lambda: store.read(key),
            lambda: store.write(key, b""),
            lambda: store.create(key, b""),
            lambda: store.stat(key),
            lambda: store.delete([key]),
            lambda: store.read_to(key, tmp_path / "x"),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="does not name an object"):
                call()

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//"])
    def test_a_prefix_that_could_leave_the_place_is_refused(self, store, prefix):
        with pytest.raises(UsageError):
            list(store.list(prefix))

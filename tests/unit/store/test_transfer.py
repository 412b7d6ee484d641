"""Trees to and from a place: whole files or none, a true hash after every kind of trouble, and an end when one is asked for."""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import Call, MemoryStore, busy, fail
from sdjob.core.errors import DataError, StoppedError, StorageError, UsageError
from sdjob.core.retry import Backoff
from sdjob.store.base import ObjectChangedError, ObjectDeniedError, ObjectInfo, ObjectMissingError
from sdjob.store.local import LocalStore
from sdjob.store.transfer import (
    PART,
    SMALL_BYTES,
    WORKERS,
    WORKERS_SMALL,
    Fetched,
    _CancelledError,
    _Tally,
    _watch,
    download_tree,
    upload_tree,
    workers_for,
)

CONTENTS = {f"{folder}/{number}.png": f"{folder} {number}".encode() * 10 for folder in ("a", "b/c") for number in range(20)}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(dict(CONTENTS))


def infos(store: MemoryStore) -> list[ObjectInfo]:
    return list(store.list(""))


def never() -> None:
    """Nobody asks to stop."""


def patience() -> Backoff:
    return Backoff(attempts=3, clock=FakeClock())


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestDownload:
    def test_every_object_with_its_hash_in_order(self, store, tmp_path):
        asked = infos(store)
        fetched = download_tree(store, infos=asked, into=tmp_path / "in", check_stop=never)
        assert files(tmp_path / "in") == CONTENTS
        assert list(fetched) == [info.key for info in asked]
        assert fetched == {key: Fetched(hashlib.sha256(data).hexdigest(), len(data)) for key, data in CONTENTS.items()}

    def test_nothing_else_is_left_in_the_folder(self, store, tmp_path):
        download_tree(store, infos=infos(store), into=tmp_path / "in", check_stop=never)
        assert {path.name for path in (tmp_path / "in").iterdir()} == {"a", "b"}

    def test_none_at_all(self, store, tmp_path):
        assert download_tree(store, infos=[], into=tmp_path / "in", check_stop=never) == {}

    def test_replaces_what_was_there(self, store, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/0.png").write_bytes(b"something longer " * 100)
        download_tree(store, infos=infos(store), into=tmp_path, check_stop=never)
        assert files(tmp_path) == CONTENTS

    def test_permissions_are_those_of_any_new_file(self, store, tmp_path):
        download_tree(store, infos=infos(store), into=tmp_path / "in", check_stop=never)
        (tmp_path / "plain").touch()
        assert (tmp_path / "in/a/0.png").stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize("error", [busy(), ObjectChangedError("replaced")])
    def test_a_try_that_failed_half_way_counts_for_nothing(self, store, tmp_path, error):
        """In its hash, in its file, and in the progress."""
        honest = store.read_to
        torn = {"b/c/7.png"}

        def tear(key, path, *, on_chunk):
            if key in torn:
                torn.discard(key)
                on_chunk(b"half of it")
                raise error
            honest(key, path, on_chunk=on_chunk)

        store.read_to = tear
        seen: list[tuple[int, int]] = []
        fetched = download_tree(
            store,
            infos=infos(store),
            into=tmp_path,
            check_stop=never,
            on_progress=lambda done, of: seen.append((done, of)),
            backoff=patience(),
        )
        assert fetched["b/c/7.png"].sha256 == hashlib.sha256(CONTENTS["b/c/7.png"]).hexdigest()
        total = sum(len(data) for data in CONTENTS.values())
        assert seen[-1] == (total, total)
        assert max(done for done, _ in seen) == total

    def test_trouble_that_does_not_pass(self, store, tmp_path):
        store.before.append(fail(busy(), method="read_to", key="a/3.png", times=3))
        with pytest.raises(StorageError, match="503"):
            download_tree(store, infos=infos(store), into=tmp_path, check_stop=never, backoff=patience())
        assert "a/3.png" not in files(tmp_path)

    def test_the_first_error_ends_the_rest(self, store, tmp_path):
        store.before.append(fail(ObjectDeniedError("refused"), method="read_to", key="a/0.png"))
        asked = sorted(infos(store), key=lambda info: info.key)
        with pytest.raises(ObjectDeniedError, match="refused"):
            download_tree(store, infos=asked, into=tmp_path / "in", check_stop=never, workers=1)
        assert [call.key for call in store.calls if call.method == "read_to"] == ["a/0.png"]
        assert files(tmp_path / "in") == {}

    def test_an_object_that_is_gone(self, store, tmp_path):
        asked = infos(store)
        store.delete(["a/3.png"])
        with pytest.raises(ObjectMissingError):
            download_tree(store, infos=asked, into=tmp_path, check_stop=never, backoff=patience())

    def test_a_stop_request_between_two_pieces(self, store, tmp_path):
        """The object under way when it comes is given up, not ended."""
        asked = threading.Event()
        honest = store.read_to

        def endless(key, path, *, on_chunk):
            while key == "a/5.png":
                on_chunk(b"a piece")
                asked.set()
            honest(key, path, on_chunk=on_chunk)

        def check_stop() -> None:
            if asked.is_set():
                raise StoppedError("stopped")

        store.read_to = endless
        order = sorted(infos(store), key=lambda info: info.key)
        with pytest.raises(StoppedError):
            download_tree(store, infos=order, into=tmp_path / "in", check_stop=check_stop, workers=1)
        found = files(tmp_path / "in")
        assert "a/5.png" not in found
        assert len(found) < len(CONTENTS)
        assert found.items() <= CONTENTS.items()  # none of them a part

    def test_an_object_that_was_listed_with_another_size(self, store, tmp_path):
        with pytest.raises(ObjectChangedError, match="listed with 3"):
            download_tree(store, infos=[ObjectInfo("a/0.png", 3)], into=tmp_path, check_stop=never, backoff=patience())

    def test_no_more_at_a_time_than_workers(self, store, tmp_path):
        gate, busy_now, most = threading.Lock(), [0], [0]
        honest = store.read_to

        def watch(key, path, *, on_chunk):
            with gate:
                busy_now[0] += 1
                most[0] = max(most[0], busy_now[0])
            honest(key, path, on_chunk=on_chunk)
            with gate:
                busy_now[0] -= 1

        store.read_to = watch
        download_tree(store, infos=infos(store), into=tmp_path, check_stop=never, workers=3)
        assert 1 <= most[0] <= 3

    def test_as_many_small_ones_at_a_time_as_there_are_workers_for(self, store, tmp_path):
        """None goes on before all of them have come."""
        honest, together = store.read_to, threading.Barrier(WORKERS_SMALL, timeout=60)

        def meet(key, path, *, on_chunk):
            together.wait()
            honest(key, path, on_chunk=on_chunk)

        store.read_to = meet
        chosen = infos(store)[:WORKERS_SMALL]
        assert len(download_tree(store, infos=chosen, into=tmp_path, check_stop=never)) == WORKERS_SMALL

    def test_fewer_where_they_are_large(self):
        assert workers_for(10, 10 * SMALL_BYTES) == WORKERS_SMALL > workers_for(10, 10 * SMALL_BYTES + 1) == WORKERS


class TestTarget:
    def test_a_key_that_is_a_file_and_a_folder(self, tmp_path):
        store = MemoryStore({"a/b": b"1", "a/b/c/d": b"2", "a/bc": b"3"})
        with pytest.raises(DataError, match="'a/b' is an object, and 'a/b/c/d' needs a folder"):
            download_tree(store, infos=infos(store), into=tmp_path, check_stop=never)
        assert files(tmp_path) == {}

    @pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", ".sdjob-tmp/x"])
    def test_a_key_that_leaves(self, key, tmp_path):
        with pytest.raises(UsageError, match="does not name an object"):
            download_tree(MemoryStore(), infos=[ObjectInfo(key, 1)], into=tmp_path / "in", check_stop=never)

    @pytest.mark.parametrize("link", ["b", "b/c"])
    def test_a_link_to_elsewhere_is_not_followed(self, store, tmp_path, link):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / "in" / link).parent.mkdir(parents=True)
        (tmp_path / "in" / link).symlink_to(elsewhere)
        with pytest.raises(DataError, match="leads out of it"):
            download_tree(store, infos=infos(store), into=tmp_path / "in", check_stop=never)
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.parametrize("name", ["a/0.png", f"a/0.png{PART}"])
    def test_nor_is_one_in_the_place_of_a_file(self, store, tmp_path, name):
        (tmp_path / "elsewhere").write_bytes(b"untouched")
        (tmp_path / "in/a").mkdir(parents=True)
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
        if name.endswith(PART):
            download_tree(store, infos=infos(store), into=tmp_path / "in", check_stop=never)
            assert files(tmp_path / "in") == CONTENTS
        else:
            with pytest.raises(DataError, match="leads out of it"):
                download_tree(store, infos=infos(store), into=tmp_path / "in", check_stop=never)
        assert (tmp_path / "elsewhere").read_bytes() == b"untouched"


class TestUpload:
    @pytest.fixture
    def tree(self, tmp_path) -> dict[str, Path]:
        for key, data in CONTENTS.items():
            (tmp_path / "source" / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / key).write_bytes(data)
        return {key: tmp_path / "source" / key for key in CONTENTS}

    def test_every_file_through_passing_trouble(self, tree, tmp_path):
        store = MemoryStore()
        store.before.append(fail(busy(), method="write_file", key="a/3.png", times=2))
        seen: list[tuple[int, int]] = []
        upload_tree(store, files=tree, check_stop=never, on_progress=lambda done, of: seen.append((done, of)), backoff=patience())
        assert store.objects == CONTENTS
        total = sum(len(data) for data in CONTENTS.values())
        assert seen[-1] == (total, total)

    def test_and_back_from_a_folder(self, tree, tmp_path):
        place = LocalStore(tmp_path / "place")
        upload_tree(place, files=tree, check_stop=never)
        download_tree(place, infos=list(place.list("")), into=tmp_path / "back", check_stop=never)
        assert files(tmp_path / "back") == CONTENTS

    def test_a_stop_request_between_two_files(self, tree, monkeypatch):
        """The file under way is sent, and none after it."""
        store = MemoryStore()
        asked, told = threading.Event(), threading.Event()
        shutdown = ThreadPoolExecutor.shutdown
        monkeypatch.setattr(ThreadPoolExecutor, "shutdown", lambda pool, **how: (told.set(), shutdown(pool, **how)))

        def hold(call: Call) -> None:
            if len(store.objects) == 5:
                asked.set()
                told.wait()

        def check_stop() -> None:
            if asked.is_set():
                raise StoppedError("stopped")

        store.before.append(hold)
        with pytest.raises(StoppedError):
            upload_tree(store, files=tree, check_stop=check_stop, workers=1)
        assert len(store.objects) == 6

    def test_a_file_that_is_not_there(self, tree, tmp_path):
        with pytest.raises(StorageError, match="scratch failed"):
            upload_tree(MemoryStore(), files={"a": tmp_path / "never"}, check_stop=never)

    def test_a_key_that_is_a_file_and_a_folder(self, tree):
        with pytest.raises(DataError, match="needs a folder"):
            upload_tree(MemoryStore(), files={"a": tree["a/0.png"], "a/b": tree["a/1.png"]}, check_stop=never)


def test_who_was_cancelled_is_not_what_went_wrong():
    """The one whose error cancelled the others may be the last to end."""
    futures: list[Future[None]] = [Future() for _ in range(3)]
    futures[1].set_exception(_CancelledError())
    looks = []

    def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            futures[2].set_exception(StorageError("the cause"))

    with pytest.raises(StorageError, match="the cause"):
        _watch(futures, tally=_Tally(0), check_stop=look, on_progress=None)
    assert looks == [0]

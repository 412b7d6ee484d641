"""What every object store must do: one class, every store. `python tests/contract/table.py` prints who does what."""

import threading
from pathlib import Path

import pytest

from contract.rows import PAGE_KEYS, RANGE_BYTES, ROWS, S3_PART_BYTES
from sdjob.core.errors import UsageError
from sdjob.store.base import ObjectMissingError, ObjectStore

SLOTS = 4  # SeaweedFS lets those who lose a race wait for seconds
LEAVING = ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "a\\b", ".sdjob-tmp/a"]
ODD = [
    "a b",
    "a+b",
    "100%",
    "a%2Fb",
    "what?",
    "a#b",
    "a=b&c=d",
    "grün/über.png",
    "日本/犬.png",
    "...",
    "~a",
    "a'b\"c",
    "a;b,c",
    "(a) [b]",
]


@pytest.fixture(params=ROWS)
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return ROWS[request.param].open(request)


@pytest.fixture(params=[name for name, row in ROWS.items() if row.creates])
def creating(request: pytest.FixtureRequest) -> ObjectStore:
    return ROWS[request.param].open(request)


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several ranges and several parts, the last of each a short one; no two ranges alike."""
    path = tmp_path_factory.mktemp("big") / "file"
    piece = bytes(range(256)) * 4
    count = (2 * S3_PART_BYTES + RANGE_BYTES // 2) // len(piece)
    path.write_bytes(b"".join(number.to_bytes(4, "big") + piece for number in range(count)))
    return path


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

    def test_a_file_goes_in_and_comes_out(self, store, tmp_path, big_file):
        data = big_file.read_bytes()
        store.write_file("blob/1/x", big_file)
        store.write_file("blob/1/x", big_file)
        seen = bytearray()
        store.read_to("blob/1/x", tmp_path / "target", on_chunk=seen.extend)
        assert (tmp_path / "target").read_bytes() == data == bytes(seen) == big_file.read_bytes()
        assert store.read("blob/1/x") == data
        assert store.stat("blob/1/x").size_bytes == len(data)

    @pytest.mark.parametrize("size", [0, 1, RANGE_BYTES - 1, RANGE_BYTES, RANGE_BYTES + 1, 2 * RANGE_BYTES])
    def test_a_file_of_any_size(self, store, tmp_path, big_file, size):
        (tmp_path / "source").write_bytes(data := big_file.read_bytes()[:size])
        store.write_file("a", tmp_path / "source")
        store.read_to("a", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == data == store.read("a")

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

    def test_a_listing_of_many_pages_has_every_object_once(self, store):
        keys = [f"log/{number:012d}" for number in range(3 * PAGE_KEYS + 1)]
        for key in keys:
            store.write(key, b"1")
        assert sorted(info.key for info in store.list("log/")) == keys

    def test_sizes_and_versions_are_those_of_stat(self, store):
        store.write("a", b"one")
        store.write("b/c", b"")
        assert list(store.list("b")) == [store.stat("b/c")]
        assert {info.key: info for info in store.list("")} == {key: store.stat(key) for key in ("a", "b/c")}
        assert store.stat("a").size_bytes == 3

    def test_the_version_changes_with_the_content(self, store):
        store.write("a", b"one")
        first = store.stat("a").version
        assert store.stat("a").version == first
        store.write("a", b"two")
        assert store.stat("a").version not in {first, None}

    def test_odd_but_legal_keys(self, store, tmp_path):
        for key in ODD:
            store.write(key, key.encode())
        assert {info.key for info in store.list("")} == set(ODD)
        for key in ODD:
            assert store.read(key) == key.encode()
            assert store.stat(key).size_bytes == len(key.encode())
            store.read_to(key, tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == key.encode()
        store.delete(ODD[:-1])
        assert [info.key for info in store.list("")] == ODD[-1:]

    def test_delete_takes_what_is_there(self, store):
        store.write("a", b"1")
        store.write("b/c", b"1")
        store.delete(iter(["a", "never", "b/c", "b/d/e"]))
        assert list(store.list("")) == []
        store.delete([])

    def test_delete_of_more_than_a_batch(self, store):
        keys = [f"a/{number}" for number in range(2 * PAGE_KEYS + 1)]
        for key in keys:
            store.write(key, b"1")
        store.delete(keys[1:])
        assert [info.key for info in store.list("")] == keys[:1]

    @pytest.mark.parametrize("key", LEAVING)
    def test_a_key_that_could_leave_the_place_is_refused(self, store, key, tmp_path):
        calls = [
            lambda: store.read(key),
            lambda: store.write(key, b""),
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

    def test_who_and_what_expires(self, store):
        assert store.credentials()
        assert store.expiry_rules() == []


class TestCreate:
    def test_create_only_where_there_is_none(self, creating):
        assert creating.create("log/0", b"first") is True
        assert creating.create("log/0", b"second") is False
        assert creating.read("log/0") == b"first"

    def test_create_refuses_what_write_made(self, creating):
        creating.write("a", b"first")
        assert creating.create("a", b"second") is False

    def test_one_winner_of_eight_at_once(self, creating):
        barrier = threading.Barrier(8)
        winners: dict[int, list[int]] = {slot: [] for slot in range(SLOTS)}

        def race(number: int) -> None:
            for slot, won in winners.items():
                barrier.wait()
                if creating.create(f"log/{slot}", str(number).encode()):
                    won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(won) for won in winners.values()] == [1] * SLOTS
        assert all(creating.read(f"log/{slot}") == str(won[0]).encode() for slot, won in winners.items())

    @pytest.mark.parametrize("key", LEAVING)
    def test_create_refuses_a_key_that_could_leave_the_place(self, creating, key):
        with pytest.raises(UsageError, match="does not name an object"):
            creating.create(key, b"")

    def test_create_again_after_delete(self, creating):
        creating.create("a", b"first")
        creating.delete(["a"])
        assert creating.create("a", b"second") is True

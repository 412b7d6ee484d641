"""A shard is read whole once on a machine, and again only after something has touched it; uploads are a few at a time."""

import os
import threading

import pytest

from fakes.encoded import computed, encoding_job, plan_of, scanned, shards_at
from fakes.memory_store import MemoryStore
from fakes.pictures import write_picture_folder
from sdjob.encodings.shard import ShardFile
from sdjob.encodings.verified import RECORD
from sdjob.job import encodings

JOB = encoding_job(flip=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_picture_folder(folder, count=9)
    return folder


@pytest.fixture
def encode(tmp_path, pictures):
    attempts = iter(range(1, 100))

    def run(store, *, machine="here"):
        index = scanned(pictures)
        shards = shards_at(store, plan=plan_of(index, job=JOB), machine=tmp_path / machine, attempt=next(attempts))
        names = computed(shards, index=index, job=JOB, pictures=pictures)
        shards.finish()
        return shards, names

    return run


@pytest.fixture
def read(monkeypatch):
    """Names of the shards whose bytes were read."""
    names: list[str] = []
    is_whole = ShardFile.is_whole
    monkeypatch.setattr(ShardFile, "is_whole", lambda file, folder: (names.append(file.name), is_whole(file, folder))[1])
    return names


def names_of(shards):
    return sorted(shard.name for shard in shards.plan.shards)


@pytest.mark.parametrize("machine", ["here", "another"])
def test_what_was_computed_or_fetched_here_is_not_read_again(encode, read, machine):
    encode(store := MemoryStore())
    for _ in range(2):
        _, names = encode(store, machine=machine)
        assert names == read == []


def test_what_nobody_knows_is_read_once(encode, read):
    first, _ = encode(store := MemoryStore())
    first.verified.record.unlink()
    for _ in range(2):
        encode(store)
        assert sorted(read) == names_of(first)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"format": 1}', '{"format": 2, "shards": {}}', '{"format": 1, "shards": {"a": 3}}']
)
def test_a_torn_record_says_nothing(encode, read, content):
    first, _ = encode(store := MemoryStore())
    first.verified.record.write_text(content)
    encode(store)
    assert sorted(read) == names_of(first)


def flipped_in_place(path):
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return status


def flip_and_set_the_time_back(path):
    """The time of the inode's change stays."""
    status = flipped_in_place(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_a_copy(path):
    """With the same bytes: it is another file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("touch", [flipped_in_place, flip_and_set_the_time_back, replace_by_a_copy, os.utime])
def test_what_was_touched_is_read_again_and_that_alone(encode, read, touch):
    first, _ = encode(store := MemoryStore())
    whole = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    victim = sorted(first.folder.iterdir())[1]
    touch(victim)
    _, names = encode(store)
    assert names == []
    assert read == [ShardFile.of(victim.name).name]
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == whole


def test_a_shard_is_on_the_disk_before_the_record_says_so(encode, monkeypatch):
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    shards, _ = encode(MemoryStore())
    assert {path.stat().st_ino for path in shards.folder.iterdir()} <= set(flushed)


def test_a_record_that_cannot_be_written_is_a_warning(encode):
    first, _ = encode(store := MemoryStore())
    first.verified.record.unlink()
    (first.scratch / RECORD).mkdir()
    shards, names = encode(store)
    assert names == []
    assert "encodings are whole cannot be noted down" in shards.log.stream.getvalue()
    assert sorted(path.name for path in first.scratch.iterdir() if path.name.startswith(RECORD)) == [RECORD]


class TestUploads:
    def test_some_are_on_their_way_at_once(self, encode):
        store = MemoryStore()
        together = threading.Barrier(3, timeout=60)  # as many shards as there are
        store.before.append(lambda call: together.wait() if call.method == "write_file" else None)
        shards, _ = encode(store)
        assert shards.failure is None
        assert len(store.objects) == 3

    def test_and_no_more_than_that(self, encode, monkeypatch):
        monkeypatch.setattr(encodings, "UPLOADS", 2)
        store, lock, under_way, seen = MemoryStore(), threading.Lock(), set(), []

        def begin(call):
            if call.method == "write_file":
                with lock:
                    under_way.add(call.key)
                    seen.append(len(under_way))

        def end(call):
            with lock:
                under_way.discard(call.key)

        store.before.append(begin)
        store.after.append(end)
        encode(store)
        assert max(seen) <= 2
        assert len(store.objects) == 3

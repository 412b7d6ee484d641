"""Encodings between attempts, jobs, machines and nodes: what is there and whole is never computed again, anything else is."""

import io
import threading

import pytest

from fakes.encoded import computed, encoding_job, plan_of, scanned, shards_at
from fakes.memory_store import MemoryStore
from fakes.pictures import write_picture_folder
from sdjob.core.errors import StorageError
from sdjob.encodings.reader import read_table
from sdjob.encodings.shard import PLACE, ShardFile
from sdjob.job.encodings import wanted_of

JOB = encoding_job(flip=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_picture_folder(folder, count=9)
    return folder


@pytest.fixture
def begin(tmp_path, pictures):
    """Makes an attempt's shards; `machine` is a scratch."""
    attempts = iter(range(1, 100))

    def make(store, *, machine="here", job=JOB, **settings):
        plan = plan_of(scanned(pictures), job=job)
        return shards_at(store, plan=plan, machine=tmp_path / machine, attempt=next(attempts), **settings)

    return make


@pytest.fixture
def encode(begin, pictures):
    """An attempt's pass from its start to its end; the shards, and the names of what it computed."""

    def run(store, *, num_processes=1, **settings):
        shards = begin(store, **settings)
        names = computed(shards, index=scanned(pictures), job=JOB, pictures=pictures, num_processes=num_processes)
        shards.finish()
        return shards, names

    return run


def shard_files(shards):
    return {path.name: path.read_bytes() for path in shards.folder.iterdir()}


def test_all_of_it_is_kept_in_the_runs_place(encode):
    shards, names = encode(store := MemoryStore())
    assert len(names) == 3
    assert store.objects == {f"{PLACE}/{name}": content for name, content in shard_files(shards).items()}


def test_what_was_kept_is_told_at_most_once_a_minute(encode, begin):
    told: list[tuple[str, object]] = []
    hear = {"on_kept": lambda count: told.append(("kept", count)), "on_encoded": lambda counts: told.append(("encoded", counts))}
    encode(MemoryStore(), **hear)
    assert sorted(told) == [("encoded", {"shards": 3, "computed": 3}), ("kept", 1)]


@pytest.mark.parametrize("machine", ["here", "another"])
def test_the_next_attempt_computes_nothing(encode, machine):
    first, _ = encode(store := MemoryStore())
    second, names = encode(store, machine=machine)
    assert names == []
    assert read_table(second.table) == read_table(first.table)
    assert shard_files(second) == shard_files(first)


def test_another_run_on_this_machine_computes_nothing_and_keeps_all(encode):
    encode(first := MemoryStore())
    _, names = encode(second := MemoryStore())
    assert names == []
    assert second.objects == first.objects


def test_what_a_killed_attempt_had_finished_is_not_computed_again(begin, encode, pictures):
    straight, _ = encode(MemoryStore(), machine="straight")
    killed = begin(MemoryStore())
    done: list[str] = []
    heard = killed.heard

    class KilledError(Exception):
        pass

    def die_after_one(fields):
        if done:
            raise KilledError
        done.append(fields["name"])
        heard(fields)

    killed.heard = die_after_one
    with pytest.raises(KilledError):
        computed(killed, index=scanned(pictures), job=JOB, pictures=pictures)
    killed.finish()
    assert not killed.table.exists()
    (killed.folder / "half.safetensors.part").write_bytes(b"torn")
    resumed, names = encode(MemoryStore())
    assert len(names) == 1  # the second was written, though nobody had heard of it
    (killed.folder / "half.safetensors.part").unlink()
    assert shard_files(resumed) == shard_files(straight)
    assert read_table(resumed.table) == read_table(straight.table)


def flip_a_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_damaged_shard_is_fetched_anew(encode):
    first, _ = encode(store := MemoryStore())
    whole = shard_files(first)
    victim = next(first.folder.iterdir())
    victim.write_bytes(flip_a_bit(victim.read_bytes()))
    second, names = encode(store, words=(words := io.StringIO()))
    assert names == []
    assert shard_files(second) == whole
    assert f"warning: {victim} is not what was written: it is taken anew" in words.getvalue()


def test_a_shard_that_is_damaged_everywhere_is_computed_again(encode):
    first, _ = encode(store := MemoryStore())
    whole = dict(store.objects)
    victim = next(first.folder.iterdir())
    victim.write_bytes(flip_a_bit(victim.read_bytes()))
    store.objects[f"{PLACE}/{victim.name}"] = flip_a_bit(whole[f"{PLACE}/{victim.name}"])
    second, names = encode(store, words=(words := io.StringIO()))
    assert names == [ShardFile.of(victim.name).name]
    assert f"{PLACE}/{victim.name} is not what was written: it is encoded again" in words.getvalue()
    assert store.objects == whole
    assert read_table(second.table) == read_table(first.table)


def test_what_was_trained_on_goes_before_other_bits(encode, tmp_path):
    """Two machines computed the same shard otherwise; the checkpoint says which was trained on."""
    first, _ = encode(store := MemoryStore())
    table = read_table(first.table)
    name = next(iter(table))
    for digit in "0f":  # before and behind it in any order of names
        other = f"{PLACE}/{name}.{digit * 64}.safetensors"
        store.objects[other] = b"other bits"
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / first.table.name).write_bytes(first.table.read_bytes())
    second, names = encode(store, machine="another", wanted=wanted_of(checkpoint))
    assert names == []
    assert read_table(second.table) == table
    assert second.changed() == []


def test_bits_that_are_lost_and_came_out_otherwise_are_told(encode):
    shards, _ = encode(MemoryStore(), wanted={})
    name = next(iter(read_table(shards.table)))
    again, _ = encode(MemoryStore(), wanted={name: "0" * 64})
    assert again.changed() == ["encodings: 1 shards were computed anew, and differ"]


def test_a_place_that_fails_costs_the_keeping_alone(encode):
    store = MemoryStore()

    def refuse(call):
        raise StorageError("the bucket is gone.")

    store.before.append(refuse)
    shards, names = encode(store, words=(words := io.StringIO()))
    assert len(names) == len(read_table(shards.table)) == 3
    assert "not all that was encoded before could be brought: the bucket is gone." in words.getvalue()
    assert "what was encoded is not kept for other attempts: the bucket is gone." in words.getvalue()


class TestNodes:
    def test_each_computes_its_share_and_takes_the_others(self, begin, pictures):
        store, index = MemoryStore(), scanned(pictures)
        ready = [threading.Event() for _ in range(2)]
        nodes = [begin(store.client(), machine=f"node{n}", node=n, nodes=2, on_ready=ready[n].set) for n in range(2)]
        names = [computed(shards, index=index, job=JOB, pictures=pictures) for shards in nodes]
        assert [len(share) for share in names] == [2, 1]
        assert not set(names[0]) & set(names[1])
        for shards, all_here in zip(nodes, ready, strict=True):
            assert all_here.wait(60)
            shards.finish()
        assert shard_files(nodes[0]) == shard_files(nodes[1])
        assert read_table(nodes[0].table) == read_table(nodes[1].table)

    def test_no_node_goes_on_without_the_others_shards(self, begin, pictures):
        alone = begin(MemoryStore(), node=0, nodes=2)
        computed(alone, index=scanned(pictures), job=JOB, pictures=pictures)
        alone.finish()  # it waits no longer for them
        assert not alone.table.exists()

    def test_a_node_computes_what_lies_damaged_in_the_place_whosever_it_was(self, begin, encode, pictures):
        """Node 0 has it whole on its own scratch, and has no reason to write it again."""
        encode(store := MemoryStore(), machine="node0")
        whole = dict(store.objects)
        first = begin(MemoryStore(), machine="elsewhere").plan.shards[0].name  # of node 0's share
        (victim,) = (key for key in store.objects if first in key)
        store.objects[victim] = flip_a_bit(store.objects[victim])
        all_here = threading.Event()
        second = begin(store, machine="node1", node=1, nodes=2, on_ready=all_here.set)
        assert computed(second, index=scanned(pictures), job=JOB, pictures=pictures) == [first]
        assert all_here.wait(60)
        second.finish()
        assert store.objects == whole
        assert second.table.exists()

    def test_what_stays_damaged_is_not_read_for_ever(self, begin, pictures):
        store, failed = MemoryStore(), threading.Event()
        waiting = begin(store, machine="node1", node=1, nodes=2, on_failure=failed.set)
        computed(waiting, index=scanned(pictures), job=JOB, pictures=pictures)
        for shard in waiting.plan.shards:
            store.objects.setdefault(f"{PLACE}/{shard.name}.{'0' * 64}.safetensors", b"torn")
        assert failed.wait(60)
        with pytest.raises(StorageError, match=r"cannot be read as it was written\. Delete it"):
            waiting.check()

    def test_a_node_that_cannot_hand_over_its_shards_fails(self, begin, pictures):
        store, failed = MemoryStore(), threading.Event()

        def refuse(call):
            if call.method == "write_file":
                raise StorageError("the bucket is full.")

        store.before.append(refuse)
        shards = begin(store, node=0, nodes=2, on_failure=failed.set)
        computed(shards, index=scanned(pictures), job=JOB, pictures=pictures)
        assert failed.wait(60)
        assert str(shards.failure) == "the bucket is full."

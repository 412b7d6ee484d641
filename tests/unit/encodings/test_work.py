"""The pass without a model: fixed batches, the same bytes every time, and what is read back is what was computed."""

import errno
import os

import numpy as np
import pytest

from fakes.encoded import TellingEncoder, computed, encode_task, encoding_job, plan_of, scanned, shards_at
from fakes.memory_store import MemoryStore
from fakes.pictures import write_picture_folder
from sdjob.core.errors import StorageError
from sdjob.data.buckets import nearest_size
from sdjob.data.samples import SampleSource
from sdjob.data.targets import settled_crop
from sdjob.encodings import shard
from sdjob.encodings.reader import Encodings, read_table
from sdjob.encodings.samples import EncodedSource
from sdjob.encodings.shard import Rows, mapped_shard, widened, write_shard
from sdjob.encodings.work import Pass

NUM_PICTURES = 11


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_picture_folder(folder, count=NUM_PICTURES)
    return folder


@pytest.fixture
def job():
    return encoding_job(flip=True, caption_dropout=0.3)


def finished(tmp_path, *, pictures, job, name="machine", **settings):
    index = scanned(pictures)
    shards = shards_at(MemoryStore(), plan=plan_of(index, job=job), machine=tmp_path / name)
    computed(shards, index=index, job=job, pictures=pictures, **settings)
    shards.finish()
    return shards


def files(shards):
    return {path.name: path.read_bytes() for path in shards.folder.iterdir()}


def test_samples_are_the_choices_that_pixels_would_come_from(tmp_path, pictures, job):
    shards = finished(tmp_path, pictures=pictures, job=job)
    encodings = Encodings.of(shards.plan, folder=shards.folder, sha256_by_shard=read_table(shards.table))
    plain = SampleSource(scanned(pictures), (pictures,), data=job.data, seed=3)
    encoded = EncodedSource(plain, encodings)
    dropped, flipped = set(), set()
    for step in range(20):
        for place in range(2):
            expected = plain.sample(step, place, global_batch=2)
            sample = encoded.sample(step, place, global_batch=2)
            told = TellingEncoder()
            mean = told.pictures(expected.pixels_CHW[None])["mean_CHW"].values_E[0]
            assert np.allclose(sample.picture["mean_CHW"], mean)
            assert sample.caption == expected.caption
            assert sample.states is not None
            assert sample.states["states_TD"][0, 0] == len(expected.caption)
            dropped.add(expected.caption == "")
            flipped.add(expected.flipped)
    assert dropped == flipped == {False, True}


def test_the_encoder_gets_batches_of_one_shape(tmp_path, pictures, job):
    index = scanned(pictures)
    shards = shards_at(MemoryStore(), plan=plan_of(index, job=job), machine=tmp_path)
    task = encode_task(index, job=job, pictures=pictures, encode=shards.bring(num_processes=1), scratch=shards.attempt)
    work, encoder = Pass.of(task), TellingEncoder()
    assert work is not None
    work.compute(encoder, rank=0, on_shard=lambda file: None)
    shards.finish()
    assert encoder.batches == [8, 8, 8, 8, 16]
    assert encoder.seen[0] == ""


def test_as_many_processes_as_there_are_compute_the_same_bytes(tmp_path, pictures, job):
    alone = finished(tmp_path, pictures=pictures, job=job, name="alone")
    pair = finished(tmp_path, pictures=pictures, job=job, name="pair", num_processes=2)
    assert files(alone) == files(pair)
    assert alone.table.read_bytes() == pair.table.read_bytes()


def test_processes_share_the_work(tmp_path, pictures, job):
    shards = shards_at(MemoryStore(), plan=plan_of(scanned(pictures), job=job), machine=tmp_path)
    shares = shards.bring(num_processes=2).missing
    shards.finish()
    assert [len(share) for share in shares] == [2, 1]
    assert not set(shares[0]) & set(shares[1])


def test_pictures_of_several_shapes_are_never_in_one_batch(tmp_path, pictures):
    job = encoding_job(flip=True, resolution=128, buckets={"step": 64, "min": 64, "max": 256})
    index = scanned(pictures)
    shards = finished(tmp_path, pictures=pictures, job=job)
    sizes = {nearest_size(width=entry.width, height=entry.height, data=job.data) for entry in index.entries}
    assert len(sizes) > 1
    groups = {(group.target, group.flipped) for group in shards.plan.groups[:-1]}
    assert groups == {(size, flipped) for size in sizes for flipped in (False, True)}
    encodings = Encodings.of(shards.plan, folder=shards.folder, sha256_by_shard=read_table(shards.table))
    source = SampleSource(index, (pictures,), data=job.data, seed=0)
    for number, entry in enumerate(index.entries):
        target = nearest_size(width=entry.width, height=entry.height, data=job.data)
        crop = settled_crop(entry, target=target, data=job.data)
        assert crop is not None
        for flipped in (False, True):
            pixels = source.pixels(entry, crop=crop, flipped=flipped)
            mean = TellingEncoder().pictures(pixels[None])["mean_CHW"].values_E[0]
            assert np.allclose(encodings.picture(number, target=target, flipped=flipped)["mean_CHW"], mean)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_shard_gives_back_every_bit(tmp_path, dtype):
    kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[dtype]
    values = np.arange(24).astype(kind).reshape(2, 3, 4) * kind(37)
    file = write_shard({"mean_CHW": Rows(dtype, values)}, name="a" * 32, folder=tmp_path, aside=tmp_path)
    assert file.is_whole(tmp_path)
    read = mapped_shard(tmp_path / file.file_name)["mean_CHW"]
    assert read.dtype == dtype
    assert np.array_equal(read.values_E, values)


def test_a_disk_without_room_for_a_shard_is_told_and_nothing_is_left_of_it(tmp_path, monkeypatch):
    def fill(path, **_):
        path.write_bytes(b"torn")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard, "write_tensors", fill)
    with pytest.raises(StorageError, match=r"an encoding cannot be written: No space left on device\. Make room there"):
        write_shard({"mean_CHW": Rows("F32", np.zeros((1, 4, 8, 8)))}, name="a" * 32, folder=tmp_path, aside=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_the_upper_half_of_a_float():
    values = np.array([0x3F80, 0xC040, 0x7F80], np.uint16)
    assert widened(values, dtype="BF16").tolist() == [1.0, -3.0, float("inf")]

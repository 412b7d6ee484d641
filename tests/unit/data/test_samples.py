"""Samples are functions of (seed, step, place in the batch), of pictures that are the scanned ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.pictures import write_picture_folder
from sdjob.core.errors import DataError, DeniedError, SdjobError, StorageError
from sdjob.core.retry import Backoff
from sdjob.data.buckets import TargetSize, nearest_size
from sdjob.data.crops import cropped
from sdjob.data.entries import Entry
from sdjob.data.images import decode, pixels_CHW
from sdjob.data.index import Index, scan
from sdjob.data.order import picture_at
from sdjob.data.records import list_records
from sdjob.data.samples import Sample, SampleSource
from sdjob.spec.data import DataSpec

AT_ONCE = Backoff(attempts=2, base_s=0.0)


def spec(**fields: object) -> DataSpec:
    return DataSpec.model_validate({"source": "pictures", "resolution": {"width": 64, "height": 72}, **fields})


def source_of(folder: Path, *, seed: int = 5, **fields: object) -> SampleSource:
    records = list_records(folder, image_column="image", caption_column="text")
    index = scan(folder, records=records, workers=0).index
    return SampleSource(index=index, folders=(folder,), data=spec(**fields), seed=seed, backoff=AT_ONCE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_picture_folder(tmp_path, count=10)
    return tmp_path


def drawn(source: SampleSource, *, steps: int = 60, global_batch: int = 4) -> Iterator[Sample]:
    for step in range(steps):
        for place in range(global_batch):
            yield source.sample(step, place, global_batch=global_batch)


def same(one: Sample, other: Sample) -> bool:
    facts = replace(one, pixels_CHW=None) == replace(other, pixels_CHW=None)
    return facts and one.pixels_CHW.tobytes() == other.pixels_CHW.tobytes()


class TestDraws:
    def test_pictures_follow_the_order(self, folder: Path):
        source = source_of(folder)
        ids = [sample.id for sample in drawn(source, steps=5)]
        wanted = [source.index.entries[picture_at(position, num_pictures=10, seed=5)].id for position in range(20)]
        assert ids == wanted

    def test_the_same_call_gives_the_same_sample_in_any_order(self, folder: Path):
        settings = {"crop": "random", "flip": True, "caption_dropout": 0.3}
        forwards = list(drawn(source_of(folder, **settings), steps=6))
        source = source_of(folder, **settings)
        backwards = [source.sample(step, place, global_batch=4) for step in range(5, -1, -1) for place in range(3, -1, -1)]
        assert all(same(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))

    def test_pixels(self, folder: Path):
        for sample in drawn(source_of(folder, crop="random", flip=True), steps=5):
            assert (sample.pixels_CHW.shape, sample.pixels_CHW.dtype) == ((3, 72, 64), np.float32)
            window = cropped(decode(folder / sample.id), crop=sample.crop, flipped=sample.flipped)
            assert np.array_equal(sample.pixels_CHW, pixels_CHW(window))

    def test_sizes_before_the_crop_are_told(self, folder: Path):
        sample = source_of(folder).sample(0, 0, global_batch=1)
        assert (sample.original_width, sample.original_height) == decode(folder / sample.id).size

    def test_what_sdxl_is_told_is_where_the_window_lies_in_the_picture_as_it_is_shown(self, folder: Path):
        """The ancestor scales, mirrors, and then crops at what it tells."""
        moved = 0
        for sample in drawn(source_of(folder, crop="random", flip=True), steps=10):
            height, width, top, left, *window = sample.time_ids
            picture = decode(folder / sample.id)
            assert (picture.size, window) == ((width, height), [72, 64])
            scaled = picture.resize((sample.crop.scaled_width, sample.crop.scaled_height), Image.Resampling.LANCZOS)
            shown = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if sample.flipped else scaled
            pixels = pixels_CHW(shown.crop((left, top, left + 64, top + 72)))
            assert np.abs(pixels - sample.pixels_CHW).mean() < 0.01
            moved += sample.flipped and left != sample.crop.left
        assert moved > 3

    def test_centre_crops_do_not_move(self, folder: Path):
        crops: dict[str, set] = {}
        for sample in drawn(source_of(folder)):
            crops.setdefault(sample.id, set()).add(sample.crop)
            assert not sample.flipped
        assert {len(found) for found in crops.values()} == {1}

    def test_random_crops_move(self, folder: Path):
        crops: dict[str, set] = {}
        for sample in drawn(source_of(folder, crop="random")):
            crops.setdefault(sample.id, set()).add(sample.crop)
        assert max(len(found) for found in crops.values()) > 5

    def test_half_are_flipped(self, folder: Path):
        flipped = [sample.flipped for sample in drawn(source_of(folder, flip=True))]
        assert 85 < sum(flipped) < 155  # 240 fair coins: four and a half standard deviations

    @pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.25, 30, 90), (1.0, 240, 240)])
    def test_captions_are_dropped(self, folder: Path, share: float, fewest: int, most: int):
        dropped = [sample.caption == "" for sample in drawn(source_of(folder, caption_dropout=share))]
        assert fewest <= sum(dropped) <= most

    def test_one_setting_does_not_move_the_draws_of_another(self, folder: Path):
        plain = list(drawn(source_of(folder, crop="random"), steps=10))
        more = list(drawn(source_of(folder, crop="random", flip=True, caption_dropout=0.5), steps=10))
        assert [sample.crop for sample in plain] == [sample.crop for sample in more]
        assert {sample.flipped for sample in more} == {False, True}

    def test_all_captions_are_used(self, tmp_path: Path):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        (tmp_path / "a.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
        captions = [sample.caption for sample in drawn(source_of(tmp_path), steps=30, global_batch=1)]
        assert set(captions) == {"one", "two", "three"}

    def test_with_buckets_a_batch_has_one_size_and_each_picture_its_own(self, folder: Path):
        source = source_of(folder, resolution=96, buckets={"step": 32, "min": 64, "max": 128})
        seen: dict[str, set] = {}
        for step in range(40):
            samples = [source.sample(step, place, global_batch=4) for place in range(4)]
            assert len({sample.pixels_CHW.shape for sample in samples}) == 1
            for sample in samples:
                _, height, width = sample.pixels_CHW.shape
                seen.setdefault(sample.id, set()).add(TargetSize(width, height))
                assert (sample.crop.width, sample.crop.height) == (width, height)
        for entry in source.index.entries:
            assert seen[entry.id] == {nearest_size(width=entry.width, height=entry.height, data=source.data)}

    def test_the_seed_matters(self, folder: Path):
        one, other = (list(drawn(source_of(folder, seed=seed), steps=5)) for seed in (1, 2))
        assert [sample.id for sample in one] != [sample.id for sample in other]


class TestLaterTrouble:
    """A picture that was good in the scan and is not now. Never another one in its place."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> SampleSource:
        write_picture_folder(tmp_path, count=1)
        return source_of(tmp_path)

    def path(self, source: SampleSource) -> Path:
        return source.folders[0] / source.index.entries[0].id

    def test_changed_content(self, source: SampleSource):
        Image.new("RGB", (64, 64), "red").save(self.path(source))
        with pytest.raises(DataError, match=r"picture-0000\.png: has changed since the pictures were scanned"):
            source.sample(0, 0, global_batch=1)

    def test_gone(self, source: SampleSource):
        self.path(source).unlink()
        with pytest.raises(StorageError, match=r"picture-0000\.png: .* is gone"):
            source.sample(0, 0, global_batch=1)

    @pytest.mark.parametrize(
        ("raised", "expected"), [(OSError(5, "Input/output error"), StorageError), (PermissionError(13, "no"), DeniedError)]
    )
    def test_unreadable(self, source: SampleSource, monkeypatch: pytest.MonkeyPatch, raised: OSError, expected: type[SdjobError]):
        reads = failing_reads(monkeypatch, failures=[raised, raised])
        with pytest.raises(expected, match=r"picture-0000\.png"):
            source.sample(0, 0, global_batch=1)
        assert len(reads) == 2

    def test_one_failed_read_is_forgiven(self, source: SampleSource, monkeypatch: pytest.MonkeyPatch):
        expected = source.sample(0, 0, global_batch=1)
        reads = failing_reads(monkeypatch, failures=[OSError(5, "Input/output error")])
        assert same(source.sample(0, 0, global_batch=1), expected)
        assert len(reads) == 2

    def test_one_torn_read_is_forgiven(self, source: SampleSource, monkeypatch: pytest.MonkeyPatch):
        expected = source.sample(0, 0, global_batch=1)
        reads = failing_reads(monkeypatch, failures=[b"torn"])
        assert same(source.sample(0, 0, global_batch=1), expected)
        assert len(reads) == 2

    def test_a_decoder_that_changed_its_mind(self, tmp_path: Path):
        (tmp_path / "a.png").write_bytes(b"text")
        scanned_by_another = Entry(
            id="a.png",
            sha256="982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1",  # of b"text"
            width=64,
            height=64,
            captions=("a",),
        )
        source = SampleSource(
            index=Index(entries=(scanned_by_another,)), folders=(tmp_path,), data=spec(), seed=0, backoff=AT_ONCE
        )
        with pytest.raises(DataError, match=r"a\.png: could be decoded when it was scanned"):
            source.sample(0, 0, global_batch=1)


def failing_reads(monkeypatch: pytest.MonkeyPatch, *, failures: list[OSError | bytes]) -> list[Path]:
    """The next reads go wrong, one after the other; returns what is read from now on."""
    reads: list[Path] = []
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        reads.append(path)
        failure = failures.pop(0) if failures else read(path)
        if isinstance(failure, OSError):
            raise failure
        return failure

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return reads

"""The picture folder that other tests draw: the same for the same seed, and all of it usable."""

from pathlib import Path

import pytest
from PIL import Image

from fakes.pictures import write_picture_folder
from sdjob.data.index import scan
from sdjob.data.records import list_records


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("captions", ["jsonl", "csv", "txt"])
def test_all_pictures_are_good(tmp_path: Path, captions):
    write_picture_folder(tmp_path, count=9, captions=captions)
    result = scan(tmp_path, records=list_records(tmp_path, image_column="image", caption_column="text"), workers=2)
    assert (len(result.index), result.bad) == (9, ())
    assert {len(entry.captions) for entry in result.index.entries} == {1}


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_picture_folder(tmp_path / name, seed=seed)
    assert content(tmp_path / "one") == content(tmp_path / "again")
    assert content(tmp_path / "one") != content(tmp_path / "other")


def test_sizes_and_modes_vary(tmp_path: Path):
    write_picture_folder(tmp_path)
    pictures = [Image.open(path) for path in tmp_path.glob("picture-*")]
    assert len({picture.size for picture in pictures}) > 6
    assert {picture.mode for picture in pictures} == {"RGB", "RGBA", "L", "P"}
    for picture in pictures:
        picture.close()

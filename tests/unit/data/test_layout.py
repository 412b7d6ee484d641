"""What a place's file names say: its kind, its split folders, the folders of its ids."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.data_sets import as_folder, as_parquet, as_paths, as_tar, drawn_pairs
from fakes.memory_store import MemoryStore
from sdjob.core.errors import DataError, MissingError
from sdjob.data.layout import kind_of_place, prefixes_of
from unit.data.gathering import Machine, placed

PAIRS = drawn_pairs(3)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["a.png", "b.png"], "pictures"),
        (["a.png", "metadata.jsonl", "b.parquet"], "pictures"),
        (["a.png", "metadata.parquet"], "pictures"),
        (["0001", "metadata.csv"], "pictures"),
        (["a.png", "a.txt", "b.png", "b.txt", "backup.tar"], "pictures"),
        (["a.png", "a.json"], "pictures"),
        (["a.png", "data.parquet"], "parquet"),
        (["examples/a.png", "examples/a.txt", "1.tar", "2.tar", "metadata.csv.txt"], "webdataset"),
        (["1.tar", "2.tar", "metadata.parquet"], "webdataset"),
        (["1.tar.gz", "2.TAR"], "webdataset"),
        (["1.parquet", "2.parquet", "1.tar"], "parquet"),
        (["1.parquet", "1.tar"], "parquet"),
        (["1.arrow", "state.json"], "arrow"),
        (["rows.csv", "a.png"], "table"),
        (["rows.jsonl"], "table"),
        (["rows.json", "dataset_infos.json"], "table"),
    ],
)
def test_the_kind_of_a_place(keys: list[str], kind: str):
    assert kind_of_place(keys, where="here") == kind
    assert kind_of_place(keys[::-1], where="here") == kind


@given(
    st.lists(st.text("ab/-.", min_size=1, max_size=6).filter(lambda key: "//" not in key and key.strip("/") == key), unique=True)
)
def test_no_files_rows_come_between_anothers(keys: list[str]):
    try:
        prefixes = prefixes_of([f"{key}.parquet" for key in keys], where="here")
    except DataError:
        return
    ids = [f"{prefix}/{row:09d}" for prefix in prefixes.values() for row in range(2)]
    assert ids == sorted(ids, key=os.fsencode)
    assert len(set(ids)) == 2 * len(keys)


class TestSplitFolders:
    def objects(self, *folders: str) -> dict[str, bytes]:
        return {f"{folder}/{key}": content for folder in folders for key, content in as_folder(PAIRS[:1]).items()}

    @pytest.mark.parametrize("kind", ["folder", "bucket"])
    def test_only_the_asked_one(self, machine: Machine, tmp_path: Path, kind: str):
        source = placed(self.objects("train", "val", "other"), kind=kind, folder=tmp_path / "d")
        assert list(machine.seen(source)) == ["train/000000000.png"]
        assert list(machine.seen(source, split="validation")) == ["val/000000000.png"]
        with pytest.raises(MissingError, match="its splits are 'train', 'validation'") as caught:
            machine.seen(source, split="test")
        assert caught.value.exit_code == 66

    @pytest.mark.parametrize("kind", ["folder", "bucket"])
    def test_a_lone_folder_of_that_name_is_a_folder(self, machine: Machine, tmp_path: Path, kind: str):
        source = placed(self.objects("test", "cats"), kind=kind, folder=tmp_path / "d")
        assert list(machine.seen(source)) == ["cats/000000000.png", "test/000000000.png"]
        with pytest.raises(MissingError, match="has no split 'test'; its splits are 'train'"):
            machine.seen(source, split="test")

    def test_two_names_of_one_split_are_no_split(self, machine: Machine):
        assert len(machine.seen(MemoryStore(self.objects("val", "dev")))) == 2

    def test_the_log_says_so(self, machine: Machine):
        machine.seen(MemoryStore(self.objects("train", "test")))
        (event,) = machine.events("split")
        assert "train/" in event["message"]

    def test_pictures_of_another_split_are_not_fetched(self, machine: Machine):
        store = MemoryStore(self.objects("train", "test"))
        machine.seen(store)
        assert not [call for call in store.calls if call.method == "read_to" and call.key.startswith("test/0")]

    def test_metadata_at_the_top_names_pictures_of_all(self, machine: Machine):
        objects: dict[str, Any] = {f"{split}/a.png": PAIRS[0].picture for split in ("train", "test")}
        rows = "".join(f'{{"file_name": "{split}/a.png", "text": "{split}"}}\n' for split in ("train", "test"))
        seen = machine.seen(MemoryStore(objects | {"metadata.jsonl": rows.encode()}), split="test")
        assert seen == {"test/a.png": (PAIRS[0].picture, ("test",))}


def test_hidden_files_are_nothing(machine: Machine):
    objects = {".cache/x.parquet": b"?", ".gitattributes": b"", "__MACOSX/._a.tar": b"?"}
    for make in (as_folder, as_parquet, as_tar):
        assert len(machine.seen(MemoryStore(make(PAIRS) | objects))) == 3


def test_a_change_of_a_picture_that_a_table_names_is_seen(machine: Machine):
    store = MemoryStore(as_paths(PAIRS, ending="csv"))
    before = machine.seen(store)
    store.objects["pictures/000000000.png"] = b"another, longer or shorter"
    assert machine.seen(store) != before

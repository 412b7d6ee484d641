"""Configurations and splits, as `datasets` resolves them; and what is said where they are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from fakes.data_sets import Objects, as_folder, as_parquet, drawn_pairs, embedded_table, parquet_bytes, write_objects
from fakes.memory_store import MemoryStore
from sdjob.core.errors import DataError, MissingError, UnavailableError, UsageError
from unit.data.gathering import Machine

PAIRS = drawn_pairs(6)
ONE, TWO = (parquet_bytes(embedded_table(PAIRS[start : start + 2])) for start in (0, 2))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


def captions(machine: Machine, objects: Objects, **data: Any) -> list[str]:
    return [texts[0] for _, texts in machine.seen(MemoryStore(objects), **data).values()]


def card(*configs: dict[str, Any]) -> bytes:
    import yaml

    return f"---\nlicense: mit\n{yaml.safe_dump({'configs': list(configs)})}---\n# Data\n".encode()


class TestSplits:
    @pytest.mark.parametrize(
        "names",
        [
            ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
            ("train.parquet", "test.parquet"),
            ("train/a.parquet", "test/a.parquet"),
            ("x/my_train_1.parquet", "x/my_test_1.parquet"),
        ],
    )
    def test_splits_by_name(self, machine: Machine, names: tuple[str, str]):
        objects = {names[0]: ONE, names[1]: TWO}
        assert captions(machine, objects) == [pair.caption for pair in PAIRS[:2]]
        assert captions(machine, objects, split="test") == [pair.caption for pair in PAIRS[2:4]]
        with pytest.raises(MissingError, match=r"has no split 'validation'; its splits are 'train', 'test'.*Set data.split"):
            captions(machine, objects, split="validation")

    def test_splits_of_any_name(self, machine: Machine):
        objects = {"data/cats-00000-of-00001.parquet": ONE, "data/dogs-00000-of-00001.parquet": TWO}
        assert captions(machine, objects, split="dogs") == [pair.caption for pair in PAIRS[2:4]]
        with pytest.raises(MissingError, match="its splits are 'cats', 'dogs'"):
            captions(machine, objects)

    def test_only_the_splits_files_are_fetched(self, machine: Machine):
        store = MemoryStore({"train.parquet": ONE, "test.parquet": b"never read"})
        assert len(machine.seen(store)) == 2

    @pytest.mark.parametrize("ending", ["tar", "jsonl", "csv", "arrow"])
    def test_other_kinds(self, machine: Machine, ending: str):
        from fakes.data_sets import arrow_bytes, samples_of, table_bytes, tar_bytes

        rows = [{"image": "p.png", "text": pair.caption} for pair in PAIRS[:2]]
        made = {
            "tar": lambda: tar_bytes(samples_of(PAIRS[:2])),
            "arrow": lambda: arrow_bytes(embedded_table(PAIRS[:2])),
        }.get(ending, lambda: table_bytes(rows, ending=ending))()
        objects = {f"train.{ending}": made, f"test.{ending}": b"never read", "p.png": PAIRS[0].picture or b""}
        assert captions(machine, objects) == [pair.caption for pair in PAIRS[:2]]


class TestConfigs:
    DECLARED = card(
        {
            "config_name": "cats",
            "data_files": [{"split": "train", "path": "c/*.parquet"}, {"split": "held", "path": "h.parquet"}],
        },
        {"config_name": "dogs", "data_files": "d.parquet"},
    )
    OBJECTS: Objects = {"README.md": DECLARED, "c/1.parquet": ONE, "h.parquet": TWO, "d.parquet": TWO}  # noqa: RUF012

    def test_the_cards_configurations(self, machine: Machine):
        assert captions(machine, self.OBJECTS, config="cats") == [pair.caption for pair in PAIRS[:2]]
        assert captions(machine, self.OBJECTS, config="cats", split="held") == [pair.caption for pair in PAIRS[2:4]]
        assert captions(machine, self.OBJECTS, config="dogs") == [pair.caption for pair in PAIRS[2:4]]

    def test_one_must_be_chosen(self, machine: Machine):
        with pytest.raises(UsageError, match=r"has several configurations: 'cats', 'dogs'\. Set data.config") as caught:
            captions(machine, self.OBJECTS)
        assert caught.value.exit_code == 64

    def test_one_that_is_not_there(self, machine: Machine):
        with pytest.raises(MissingError, match=r"has no configuration 'birds'; there are 'cats', 'dogs'") as caught:
            captions(machine, self.OBJECTS, config="birds")
        assert caught.value.exit_code == 66

    def test_a_split_of_the_configuration(self, machine: Machine):
        with pytest.raises(MissingError, match="its splits are 'train', 'held'"):
            captions(machine, self.OBJECTS, config="cats", split="test")

    def test_the_default(self, machine: Machine):
        objects = self.OBJECTS | {
            "README.md": card({"config_name": "cats", "data_files": "c/*"}, {"config_name": "default", "data_files": "d.parquet"})
        }
        assert captions(machine, objects) == [pair.caption for pair in PAIRS[2:4]]
        chosen = card(
            {"config_name": "cats", "data_files": "c/*", "default": True}, {"config_name": "dogs", "data_files": "d.parquet"}
        )
        assert captions(machine, objects | {"README.md": chosen}) == [pair.caption for pair in PAIRS[:2]]

    def test_none_to_choose_from(self, machine: Machine):
        for objects in (as_parquet(PAIRS), as_folder(PAIRS)):
            with pytest.raises(MissingError, match="has no configuration 'cats'"):
                captions(machine, objects, config="cats")
            assert len(captions(machine, objects, config="default")) == 6

    def test_a_folder_of_pictures_with_configurations(self, machine: Machine):
        objects = as_folder(PAIRS[:2], metadata="txt")
        objects = {f"{top}/{key}": content for top in ("a", "b") for key, content in objects.items()}
        objects["README.md"] = card({"config_name": "a", "data_dir": "a"}, {"config_name": "b", "data_dir": "b"})
        assert list(machine.seen(MemoryStore(objects), config="b")) == ["b/000000000.png", "b/000000001.jpg"]

    def test_how_csv_is_written(self, machine: Machine):
        table = b"image|text\np.png|red, old\n"
        objects = {
            "README.md": card({"config_name": "default", "data_files": "a.csv", "sep": "|"}),
            "a.csv": table,
            "p.png": PAIRS[0].picture or b"",
        }
        assert captions(machine, objects) == ["red, old"]

    def test_where_the_rows_of_json_stand(self, machine: Machine):
        document = json.dumps({"rows": [{"image": "p.png", "text": "one"}]}).encode()
        objects = {"README.md": card({"config_name": "default", "data_files": "a.json", "field": "rows"}), "a.json": document}
        assert captions(machine, objects | {"p.png": b""}) == ["one"]

    def test_an_option_that_changes_rows_is_never_ignored(self, machine: Machine):
        objects = {"README.md": card({"config_name": "default", "data_files": "a.csv", "skiprows": 1}), "a.csv": b"x"}
        with pytest.raises(DataError, match="its data card sets 'skiprows'"):
            captions(machine, objects)

    @pytest.mark.parametrize(
        "text",
        [
            b"---\nconfigs:\n- config_name: a\n  data_files: none/*\n---\n",
            b"---\nconfigs: 7\n---\n",
            b"---\nconfigs:\n- {]\n---\n",
        ],
    )
    def test_a_card_that_is_wrong(self, machine: Machine, text: bytes):
        with pytest.raises(DataError, match="cannot tell what is in it") as caught:
            captions(machine, {"README.md": text, "a.parquet": ONE})
        assert "skeleton" not in str(caught.value)

    def test_a_card_without_configurations_needs_no_library(self, machine: Machine, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        text = b"---\nlicense: mit\n---\n# Usage\n\nconfigs:\n"
        assert len(captions(machine, as_folder(PAIRS) | {"README.md": text})) == 6
        with pytest.raises(UnavailableError, match=r"pip install 'sdjob\[data\]'"):
            captions(machine, as_parquet(PAIRS))


class TestWrittenByTheLibrary:
    """What its own writers write."""

    @pytest.fixture
    def made(self) -> datasets.Dataset:
        rows = {"image": [{"bytes": pair.picture, "path": None} for pair in PAIRS], "text": [pair.caption for pair in PAIRS]}
        return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())

    def check(self, machine: Machine, folder: Path, **data: Any) -> None:
        found = list(machine.seen(folder, **data).values())
        assert found == [(pair.picture, (pair.caption,)) for pair in PAIRS]

    def test_to_parquet(self, machine: Machine, tmp_path: Path, made: datasets.Dataset):
        (tmp_path / "d").mkdir()
        made.to_parquet(str(tmp_path / "d/train.parquet"))
        self.check(machine, tmp_path / "d")

    @pytest.mark.parametrize("num_shards", [1, 3])
    def test_save_to_disk(self, machine: Machine, tmp_path: Path, made: datasets.Dataset, num_shards: int):
        made.save_to_disk(tmp_path / "d", num_shards=num_shards)
        self.check(machine, tmp_path / "d")

    def test_a_saved_dictionary(self, machine: Machine, tmp_path: Path, made: datasets.Dataset):
        datasets.DatasetDict({"test": made, "mine": made.select([0])}).save_to_disk(tmp_path / "d")
        self.check(machine, tmp_path / "d", split="test")
        assert len(machine.seen(tmp_path / "d", split="mine")) == 1
        with pytest.raises(MissingError, match="its splits are 'test', 'mine'"):
            machine.seen(tmp_path / "d")

    def test_a_saved_split_of_another_name(self, machine: Machine, tmp_path: Path, made: datasets.Dataset):
        datasets.Dataset(made.data, split=datasets.Split.TEST).save_to_disk(tmp_path / "d")
        with pytest.raises(MissingError, match="its splits are 'test'"):
            machine.seen(tmp_path / "d")
        assert len(machine.seen(tmp_path / "d", split="test")) == 6

    def test_a_saved_data_set_that_lacks_a_file(self, machine: Machine, tmp_path: Path, made: datasets.Dataset):
        made.save_to_disk(tmp_path / "d", num_shards=2)
        next((tmp_path / "d").glob("data-00001*")).unlink()
        with pytest.raises(DataError, match=r"names 'data-00001-of-00002\.arrow', which is not there"):
            machine.seen(tmp_path / "d")

    def test_pixels_are_refused(self, machine: Machine, tmp_path: Path):
        (tmp_path / "d").mkdir()
        pixels = datasets.Dataset.from_dict(
            {"image": [[[1, 2], [3, 4]]], "text": ["a"]},
            features=datasets.Features({"image": datasets.Array2D((2, 2), "uint8"), "text": datasets.Value("string")}),
        )
        pixels.to_parquet(str(tmp_path / "d/train.parquet"))
        with pytest.raises(DataError, match=r"'image' holds a list \(an array of pixels\?\), not a picture file"):
            machine.seen(tmp_path / "d")


class TestNothingToTrainOn:
    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            (["data.py", "README.md"], "only its own script can read, and code from a data set is never run"),
            (["train.zip"], "zip files, which are not read. Unpack them"),
            (["a.txt"], "holds no pictures"),
            (["a.mp3"], "holds no pictures"),
            ([".gitattributes"], "holds no files"),
        ],
    )
    def test_is_said(self, machine: Machine, keys: list[str], says: str):
        with pytest.raises((DataError, MissingError), match=says):
            captions(machine, dict.fromkeys(keys, b"x"))

    def test_a_script_beside_data_is_not_run(self, machine: Machine):
        evil = b"raise SystemExit('ran')"
        for name in ("d.py", "data.py", "skeleton.py"):
            assert len(captions(machine, as_parquet(PAIRS) | {name: evil})) == 6


def test_the_library_stays_off_the_network_and_out_of_the_home(tmp_path: Path):
    write_objects(tmp_path / "d", as_parquet(PAIRS))
    program = """
import socket, sys
from pathlib import Path
def refuse(*arguments, **options): raise AssertionError("asked the network")
socket.socket.connect = socket.create_connection = refuse
from unit.data.gathering import Machine
print(len(Machine(Path(sys.argv[2])).seen(Path(sys.argv[1]))), "torch" in sys.modules, "jax" in sys.modules)
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))} | {"HOME": str(home)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[3] / "runner")))
    command = [sys.executable, "-c", program, str(tmp_path / "d"), str(tmp_path / "scratch")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ended.stdout.split() == ["6", "False", "False"], ended.stderr
    assert list(home.rglob("*")) == []
    assert list((tmp_path / "scratch/data").glob("aside-*")) == []

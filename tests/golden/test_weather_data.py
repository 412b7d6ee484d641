"""Data sets that are damaged, hostile, of another form than the job says, or not what they were."""

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from fakes.data_sets import as_folder, as_parquet, as_tar, drawn_pairs, embedded_table, parquet_bytes, tar_bytes, write_objects
from fakes.weather import Weather

PAIRS = drawn_pairs(4)
PICTURE = PAIRS[0].picture or b""
PARQUET, TAR = as_parquet(PAIRS)["data.parquet"], as_tar(PAIRS)["data.tar"]
SPLITS = {f"data/{split}-00000-of-00001.parquet": PARQUET for split in ("train", "test")}
CARD = (
    "---\nconfigs:\n- config_name: small\n  data_files: small.parquet\n- config_name: large\n  data_files: large.parquet\n---\n"
)
CONFIGS = {"README.md": CARD.encode(), "small.parquet": PARQUET, "large.parquet": PARQUET}
Objects = Mapping[str, bytes]


def linked() -> bytes:
    link = tarfile.TarInfo("a.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_bytes([(link, b""), ("a.txt", b"a cat")])


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def without_captions(count: int) -> Objects:
    rows = [{"file_name": f"{number}.png", "text": "" if number < count else "a cat"} for number in range(4)]
    return {**{f"{number}.png": PICTURE for number in range(4)}, "metadata.jsonl": jsonl(*rows)}


NO_PICTURES = parquet_bytes(pa.table({"prompt": ["a cat"], "url": ["https://example.org/cat.png"]}))
TEXTS = parquet_bytes(pa.table({"image": [[1, 2, 3]], "text": ["a cat"]}))

CASES: dict[str, tuple[Objects, dict[str, Any], int]] = {
    "empty": ({}, {}, 65),
    "parquet-cut-short": ({"data.parquet": PARQUET[:-100]}, {}, 65),
    "parquet-without-columns": ({"data.parquet": NO_PICTURES}, {}, 65),
    "parquet-of-pixels": ({"data.parquet": TEXTS}, {}, 65),
    "column-misspelled": ({"data.parquet": PARQUET}, {"caption_column": "txt"}, 65),
    "split-missing": (SPLITS, {"split": "validation"}, 66),
    "config-missing": (CONFIGS, {"config": "medium"}, 66),
    "config-needed": (CONFIGS, {}, 64),
    "config-of-none": (as_folder(PAIRS), {"config": "medium"}, 66),
    "card-broken": ({"README.md": CARD.replace("data_files", "{data").encode(), "small.parquet": PARQUET}, {}, 65),
    "captions-empty": (without_captions(2), {}, 65),
    "captions-not-utf8": ({"a.png": PICTURE, "a.txt": b"caf\xe9"}, {}, 65),
    "pictures-damaged": ({**as_folder(PAIRS), "000000000.png": PICTURE[:100]}, {}, 65),
    "metadata-names-missing": ({"a.png": PICTURE, "metadata.jsonl": jsonl({"file_name": "b.png", "text": "b"})}, {}, 65),
    "metadata-leads-out": ({"a.png": PICTURE, "metadata.jsonl": jsonl({"file_name": "../b.png", "text": "b"})}, {}, 65),
    "metadata-torn": ({"a.png": PICTURE, "metadata.jsonl": b'{"file_name": "a.png", "te'}, {}, 65),
    "metadata-csv-torn": ({"a.png": PICTURE, "metadata.csv": b'file_name,text\na.png,"a cat\n'}, {}, 65),
    "tar-cut-short": ({"data.tar": TAR[: len(TAR) // 2]}, {}, 65),
    "tar-name-leads-out": ({"data.tar": tar_bytes([("../../a.png", PICTURE), ("../../a.txt", b"a cat")])}, {}, 65),
    "tar-name-absolute": ({"data.tar": tar_bytes([("/etc/a.png", PICTURE), ("/etc/a.txt", b"a cat")])}, {}, 65),
    "tar-link": ({"data.tar": linked()}, {}, 65),
    "tar-without-pictures": ({"data.tar": tar_bytes([("a.txt", b"a cat"), ("b.txt", b"a dog")])}, {}, 65),
    "tar-sample-without-picture": (
        {"data.tar": tar_bytes([("a.png", PICTURE), ("a.txt", b"a cat"), ("b.txt", b"a dog")])},
        {},
        65,
    ),
    "tar-gz-damaged": ({"data.tar.gz": as_tar(PAIRS, compress=True)["data.tar.gz"][:-4]}, {}, 65),
    "urls": ({"data.jsonl": jsonl({"image": "https://example.org/cat.png", "text": "a cat"})}, {}, 65),
    "script": ({"pictures.py": b"import datasets", "README.md": b"# Pictures"}, {}, 65),
    "zip": ({"pictures.zip": b"PK\x03\x04"}, {}, 65),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder(case: str, weather: Weather):
    objects, fields, code = CASES[case]
    weather.job(data__source="set", **{f"data__{name}": value for name, value in fields.items()})
    (weather.folder / "set").mkdir()
    write_objects(weather.folder / "set", objects)
    weather.says(f"data-{case}", weather.run(), code=code)
    assert not list(weather.folder.parent.glob("*.png"))


@pytest.mark.parametrize("case", ["tar-name-leads-out", "pictures-damaged", "metadata-torn"])
def test_a_bucket(case: str, seaweed, weather):
    """In a bucket the message names the object, not the copy of it on this machine."""
    objects, _, code = CASES[case]
    bucket = weather.s3(seaweed, files={f"set/{name}": data for name, data in objects.items()})
    weather.job(data__source=f"s3://{bucket}/set")
    weather.says(f"data-s3-{case}", weather.run(), code=code)


def test_a_few_bad_pictures_are_said_and_left_out(weather):
    """Allowed, so that the job comes as far as the next thing that is wrong."""
    weather.job(data__source="set", data__max_bad_share=0.5, train__init_from="lora.safetensors")
    write_objects(weather.folder / "set", without_captions(2))
    weather.says("data-captions-few-empty", weather.run(), code=66)


class TestWhatIsNoLongerWhatItWas:
    """The first attempt makes the index and ends for another reason; then the data changes."""

    def start(self, weather: Weather, source: str) -> None:
        weather.job(data__source=source, train__init_from="lora.safetensors")
        assert "lora.safetensors does not exist" in weather.run().error
        weather.job(data__source=source)

    def bucket(self, seaweed: Any, weather: Weather) -> str:
        bucket = weather.s3(seaweed, files={f"set/{name}": data for name, data in as_folder(PAIRS).items()})
        self.start(weather, f"s3://{bucket}/set")
        del weather.places[f"s3://{bucket}"]  # what follows is not ours
        return bucket

    def on_another_machine(self, weather: Weather) -> str:
        return f"--set=run.scratch={weather.folder / 'scratch/2'}"

    def test_a_picture_was_replaced(self, seaweed, weather):
        bucket = self.bucket(seaweed, weather)
        seaweed.client.put_object(Bucket=bucket, Key="set/000000002.png", Body=PICTURE)
        weather.says("data-picture-replaced", weather.run(self.on_another_machine(weather)), code=65)

    def test_a_picture_was_deleted(self, seaweed, weather):
        bucket = self.bucket(seaweed, weather)
        seaweed.client.delete_object(Bucket=bucket, Key="set/000000002.png")
        weather.says("data-picture-deleted", weather.run(self.on_another_machine(weather)), code=66)

    def test_the_index_was_damaged(self, weather):
        write_objects(weather.folder / "set", as_folder(PAIRS))
        self.start(weather, "set")
        index = weather.folder / "run/data/index.jsonl"
        index.write_bytes(index.read_bytes()[:-20])
        weather.says("data-index-damaged", weather.run(), code=65)


def test_a_table_whose_pictures_are_elsewhere(weather):
    """Paths are looked for below the data set alone."""
    weather.job(data__source="set")
    table = io.BytesIO()
    table.write(jsonl({"image": "../pictures/picture-0000.png", "text": "a cat"}))
    write_objects(weather.folder / "set", {"data.jsonl": table.getvalue()})
    weather.says("data-table-leads-out", weather.run(), code=65)


def test_a_parquet_file_with_a_damaged_row(weather):
    rows = embedded_table([*PAIRS[:3], PAIRS[3].__class__(b"no picture", "a cat")])
    weather.job(data__source="set")
    write_objects(weather.folder / "set", {"data.parquet": parquet_bytes(rows)})
    weather.says("data-parquet-row-damaged", weather.run(), code=65)

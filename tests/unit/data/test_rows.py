"""Rows of tables: columns, values, damage, and what no picture can be made of."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fakes.data_sets import Pair, arrow_bytes, as_arrow, as_parquet, drawn_pairs, embedded_table, parquet_bytes
from fakes.memory_store import MemoryStore, flipped
from sdjob.core.errors import DataError
from unit.data.gathering import Machine, fetched

PAIRS = drawn_pairs(4)
PNG = PAIRS[0].picture or b""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


def of_table(machine: Machine, table: pa.Table, **data: Any) -> list[Any]:
    return list(machine.seen(MemoryStore({"a.parquet": parquet_bytes(table)}), **data).values())


def of_lines(machine: Machine, *rows: dict[str, Any], **files: bytes) -> list[Any]:
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    return list(machine.seen(MemoryStore({"t/a.jsonl": lines, **files})).values())


class TestColumns:
    def test_other_names(self, machine: Machine):
        table = embedded_table(PAIRS, image="photo", text="caption")
        found = of_table(machine, table, image_column="photo", caption_column="caption")
        assert found == [(pair.picture, (pair.caption,)) for pair in PAIRS]

    @pytest.mark.parametrize("make", [as_parquet, as_arrow])
    def test_unknown_ones_name_the_others_and_the_nearest(self, machine: Machine, make: Any):
        store = MemoryStore(make(PAIRS))
        with pytest.raises(DataError) as caught:
            machine.seen(store, caption_column="Texts")
        assert "has no column 'Texts'; its columns are 'image', 'text'. Did you mean 'text'? Set data.caption_column." in str(
            caught.value
        )
        with pytest.raises(DataError, match=r"has no column 'img'.*Did you mean 'image'\? Set data.image_column"):
            machine.seen(store, image_column="img")

    def test_the_other_columns_are_not_read(self, machine: Machine):
        table = embedded_table(PAIRS[:1]).append_column("odd", pa.array([pa.scalar(1, pa.duration("s"))]))
        assert len(of_table(machine, table)) == 1

    def test_the_column_of_this_name_before_file_name(self, machine: Machine):
        table = embedded_table(PAIRS[:1]).append_column("file_name", pa.array(["gone.png"]))
        assert of_table(machine, table) == [(PNG, (PAIRS[0].caption,))]


class TestValues:
    @pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
    def test_kinds_of_bytes(self, machine: Machine, kind: pa.DataType):
        table = embedded_table(PAIRS, raw=True)
        pictures = pa.array([pair.picture for pair in PAIRS], kind)
        assert len(of_table(machine, table.set_column(0, "image", pictures))) == 4

    @pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
    def test_kinds_of_text(self, machine: Machine, kind: pa.DataType):
        texts = pa.array([pair.caption for pair in PAIRS]).cast(kind)
        assert of_table(machine, embedded_table(PAIRS).set_column(1, "text", texts))[1][1] == (PAIRS[1].caption,)

    def test_null_and_blank_are_for_the_scan_to_judge(self, machine: Machine):
        pairs = [Pair(None, "a"), Pair(PNG, None), Pair(PNG, " "), Pair(PNG, "good")]
        result = machine.scan(MemoryStore(as_parquet(pairs)))
        assert [entry.id for entry in result.index.entries] == ["data/000000003.png"]
        assert [(bad.id, bad.why) for bad in result.bad] == [
            ("data/000000000", "is missing"),
            ("data/000000001.png", "has no caption"),
            ("data/000000002.png", "has no caption"),
        ]

    def test_a_number_is_no_caption(self, machine: Machine):
        with pytest.raises(DataError, match="the caption in 'text' is 7, which is not text") as caught:
            of_table(machine, embedded_table(PAIRS[:1]).set_column(1, "text", pa.array([7])))
        assert caught.value.where == "s3://bucket/data/a.parquet: row 0"

    @pytest.mark.parametrize("address", ["https://x.test/a.png", "http://x.test/a.png", "s3://b/a.png", "//x.test/a.png"])
    def test_web_addresses_are_refused(self, machine: Machine, address: str):
        with pytest.raises(DataError, match="holds a web address, and nothing is downloaded from the web"):
            of_lines(machine, {"image": address, "text": "a"})
        with pytest.raises(DataError, match="holds a web address"):
            of_lines(machine, {"image": {"path": address}, "text": "a"})

    def test_bytes_in_json_are_base64(self, machine: Machine):
        import base64

        text = base64.b64encode(PNG).decode()
        rows = [{"image": {"bytes": text}, "text": "a"}, {"image": f"data:image/png;base64,{text}", "text": "b"}]
        assert of_lines(machine, *rows) == [(PNG, ("a",)), (PNG, ("b",))]
        with pytest.raises(DataError, match="bytes that are not base64"):
            of_lines(machine, {"image": {"bytes": "?"}, "text": "a"})

    @pytest.mark.parametrize("value", [7, [1, 2], {"pixels": 1}, True])
    def test_what_is_no_picture(self, machine: Machine, value: Any):
        with pytest.raises(DataError, match="not a picture file's bytes or path"):
            of_lines(machine, {"image": value, "text": "a"})


class TestPaths:
    @pytest.mark.parametrize("path", ["p.png", "./p.png", "x/../p.png", "../t/p.png", "t/p.png"])
    def test_relative_to_the_table_or_to_the_data_set(self, machine: Machine, path: str):
        assert of_lines(machine, {"image": path, "text": "a"}, **{"t/p.png": PNG}) == [(PNG, ("a",))]

    @pytest.mark.parametrize("path", ["../../p.png", "/etc/p.png", "../..", "a\0.png"])
    def test_that_leave_the_data_set(self, machine: Machine, path: str):
        with pytest.raises(DataError, match="leaves the data set"):
            of_lines(machine, {"image": path, "text": "a"})

    def test_a_link_out_of_a_folder_on_this_machine(self, machine: Machine, tmp_path: Path):
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "d").mkdir()
        (tmp_path / "d/p.png").symlink_to("../secret.png")
        (tmp_path / "d/a.csv").write_text("image,text\np.png,a\n", encoding="utf-8")
        with pytest.raises(DataError, match="outside the folder"):
            machine.seen(tmp_path / "d")

    def test_a_missing_picture_is_for_the_scan_to_judge(self, machine: Machine):
        lines = b'{"image": "gone.png", "text": "a"}\n'
        result = machine.scan(MemoryStore({"a.jsonl": lines}))
        assert [(bad.id, bad.why) for bad in result.bad] == [("a/000000000", "is missing")]

    def test_a_picture_of_many_rows_is_fetched_once_a_batch(self, machine: Machine):
        store = MemoryStore({"a.csv": b"image,text\n" + b"p.png,a\n" * 5, "p.png": PNG})
        assert list(machine.seen(store)) == [f"a/{row:09d}.png" for row in range(5)]
        assert fetched(store) == ["a.csv", "p.png"]


class TestTables:
    def test_a_column_that_comes_late(self, machine: Machine):
        found = of_lines(machine, {"image": "p.png"}, {"image": "p.png", "text": "b"}, **{"p.png": PNG})
        assert found == [(PNG, ()), (PNG, ("b",))]

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("a.jsonl", b'{"image": "p.png", "text": "a"}\n{"image": ', r"a\.jsonl:2: is not JSON"),
            ("a.jsonl", b"[1]\n", "is not a JSON object"),
            ("a.jsonl", b'{"image": "\xff"}', "is not UTF-8"),
            ("a.json", b'[{"image": 1}, 2]', "is no list of rows"),
            ("a.json", b"{\n}", "is no list of rows"),
            ("a.csv", b'image,text\np.png,"a\n', "is not CSV"),
            ("a.csv", b"image,text\np.png,a, b\n", r"a\.csv:2: has more fields than the header"),
        ],
    )
    def test_damage_is_named_with_its_line(self, machine: Machine, name: str, text: bytes, says: str):
        with pytest.raises(DataError, match=says) as caught:
            machine.seen(MemoryStore({name: text}))
        assert (caught.value.where or "").startswith("s3://bucket/data/a.")

    def test_json_that_is_lines(self, machine: Machine):
        rows = b'{"image": "p.png", "text": "a"}\n{"image": "p.png", "text": "b"}\n'
        for text in (rows, rows.splitlines()[0]):
            assert next(iter(machine.seen(MemoryStore({"a.json": text, "p.png": PNG})).values())) == (PNG, ("a",))

    def test_tabs(self, machine: Machine):
        store = MemoryStore({"a.tsv": b"image\ttext\np.png\tred, old\n", "p.png": PNG})
        assert list(machine.seen(store).values()) == [(PNG, ("red, old",))]


def test_memory_holds_a_row_group_and_not_the_file(tmp_path: Path):
    import os

    from sdjob.data.parquet import parquet_batches

    table = embedded_table([Pair(os.urandom(100_000), "x") for _ in range(200)])
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(table, row_group_size=2))
    del table
    before, most = pa.total_allocated_bytes(), 0
    for _ in parquet_batches(tmp_path / "a.parquet", columns=["image", "text"], name="a"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 6_000_000


class TestDamage:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_parquet_that_is_cut_short(self, machine: Machine, share: float):
        whole = as_parquet(PAIRS)["data.parquet"]
        with pytest.raises(DataError, match="is damaged or cut short") as caught:
            machine.seen(MemoryStore({"data.parquet": whole[: int(len(whole) * share)]}))
        assert (caught.value.where, caught.value.exit_code) == ("s3://bucket/data/data.parquet", 65)

    def test_parquet_with_a_damaged_page(self, machine: Machine):
        whole = as_parquet(PAIRS)["data.parquet"]
        with pytest.raises(DataError):
            machine.seen(MemoryStore({"data.parquet": flipped(whole, at=6)}))

    @pytest.mark.parametrize("stream", [True, False])
    def test_arrow_that_is_cut_short(self, machine: Machine, stream: bool):
        whole = arrow_bytes(embedded_table(PAIRS), stream=stream)
        assert len(machine.seen(MemoryStore({"data.arrow": whole}))) == 4
        for size in range(0, len(whole), 64):
            with pytest.raises(DataError, match="is damaged or cut short"):
                machine.seen(MemoryStore({"data.arrow": whole[:size]}))
        with pytest.raises(DataError, match="is damaged or cut short"):
            machine.seen(MemoryStore({"data.arrow": whole[:-8]}))

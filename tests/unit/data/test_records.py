"""Captions of image folders as people write them down: metadata in jsonl, csv or parquet, text files."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from sdjob.core.errors import DataError
from sdjob.data.records import Record
from unit.data.image_folders import captions, draw, records, write_jsonl


class TestJsonl:
    def test_rows_become_records(self, tmp_path: Path):
        draw(tmp_path, "b.png", "a.png")
        write_jsonl(tmp_path, {"file_name": "b.png", "text": "a bird"}, {"file_name": "a.png", "text": "an ape"})
        assert records(tmp_path) == [Record("a.png", ("an ape",)), Record("b.png", ("a bird",))]

    def test_bom_crlf_blank_lines_and_unicode(self, tmp_path: Path):
        draw(tmp_path, "größe 猫.png")
        line = json.dumps({"file_name": "größe 猫.png", "text": " eine Katze — 猫 "}, ensure_ascii=False)
        (tmp_path / "metadata.jsonl").write_bytes(f"\ufeff\r\n{line}\r\n\r\n  \r\n".encode())
        assert captions(tmp_path) == {"größe 猫.png": ("eine Katze — 猫",)}

    def test_line_separator_inside_a_caption_is_kept(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one\u2028two"}\n', encoding="utf-8")
        assert captions(tmp_path) == {"a.png": ("one\u2028two",)}

    @pytest.mark.parametrize("spelling", ["./x/a.png", "x/a.png", "x\\a.png", ".\\x\\a.png", "x//a.png", "y/../x/a.png"])
    def test_spellings_of_one_path(self, tmp_path: Path, spelling: str):
        draw(tmp_path, "x/a.png")
        write_jsonl(tmp_path, {"file_name": spelling, "text": "one"})
        assert captions(tmp_path) == {"x/a.png": ("one",)}

    def test_a_backslash_that_belongs_to_the_name(self, tmp_path: Path):
        draw(tmp_path, "x\\a.png", "x/a.png")
        write_jsonl(tmp_path, {"file_name": "x\\a.png", "text": "odd"}, {"file_name": "x/a.png", "text": "even"})
        assert captions(tmp_path) == {"x\\a.png": ("odd",), "x/a.png": ("even",)}

    def test_decomposed_accents_on_disk(self, tmp_path: Path):
        on_disk, in_metadata = unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")
        draw(tmp_path, on_disk)
        write_jsonl(tmp_path, {"file_name": in_metadata, "text": "one"})
        assert captions(tmp_path) == {on_disk: ("one",)}

    def test_several_rows_and_lists_are_several_captions(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "./a.png", "text": ["two", " ", "three"]}]
        write_jsonl(tmp_path, *rows)
        assert captions(tmp_path) == {"a.png": ("one", "two", "three")}

    def test_sub_folder_with_metadata_of_its_own(self, tmp_path: Path):
        draw(tmp_path, "a.png", "sub/a.png", "sub/deep/b.png")
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "outer"})
        write_jsonl(tmp_path / "sub", {"file_name": "a.png", "text": "inner"}, {"file_name": "deep/b.png", "text": "deep"})
        assert captions(tmp_path) == {"a.png": ("outer",), "sub/a.png": ("inner",), "sub/deep/b.png": ("deep",)}

    @pytest.mark.parametrize("caption", [{"text": ""}, {"text": "  "}, {"text": None}, {"text": []}, {}])
    def test_no_caption(self, tmp_path: Path, caption: dict[str, Any]):
        draw(tmp_path, "a.png", "b.png")
        write_jsonl(tmp_path, {"file_name": "a.png", **caption}, {"file_name": "b.png", "text": "b"})
        assert captions(tmp_path) == {"a.png": (), "b.png": ("b",)}

    def test_missing_and_unlisted_pictures_are_records(self, tmp_path: Path):
        draw(tmp_path, "a.png", "unlisted.png")
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "a"}, {"file_name": "gone.png", "text": "g"})
        assert captions(tmp_path) == {"a.png": ("a",), "gone.png": ("g",), "unlisted.png": ()}

    def test_a_listed_file_needs_no_known_extension(self, tmp_path: Path):
        draw(tmp_path, "0001", ".hidden/b.png")
        write_jsonl(tmp_path, {"file_name": "0001", "text": "a"}, {"file_name": ".hidden/b.png", "text": "b"})
        assert captions(tmp_path) == {".hidden/b.png": ("b",), "0001": ("a",)}

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"file_name": "a.png", "text": }', "is not JSON"),
            ('["a.png", "a"]', "is not a JSON object"),
            ('{"file_name": "a.png", "text": 7}', "which is not text"),
            ('{"file_name": "a.png", "text": ["a", 7]}', "which is not text"),
            ('{"file_name": "a.png", "text": "\\ud83d"}', "surrogate"),
            ('{"file_name": 7, "text": "a"}', "names no picture"),
            ('{"file_name": " ", "text": "a"}', "names no picture"),
            ('{"text": "a"}', "names no picture"),
            ('{"file_name": "a\\u0000.png", "text": "a"}', "zero byte"),
        ],
    )
    def test_a_bad_line_is_named_with_its_number(self, tmp_path: Path, line: str, says: str):
        draw(tmp_path, "a.png")
        (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "a"}}\n\n{line}\n', encoding="utf-8")
        with pytest.raises(DataError, match=says) as caught:
            records(tmp_path)
        assert caught.value.where == f"{tmp_path / 'metadata.jsonl'}:3"

    def test_not_utf8(self, tmp_path: Path):
        (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "é"}'.encode("latin-1"))
        with pytest.raises(DataError, match="is not UTF-8"):
            records(tmp_path)


class TestColumns:
    def test_an_unknown_caption_column_names_the_others_and_the_nearest(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        write_jsonl(tmp_path, {"file_name": "a.png", "Caption": "a"}, {"file_name": "a.png", "extra": "b"})
        with pytest.raises(DataError) as caught:
            records(tmp_path, caption_column="captions")
        message = str(caught.value)
        assert "'file_name', 'Caption', 'extra'" in message
        assert "Did you mean 'Caption'?" in message
        assert "data.caption_column" in message

    def test_an_unknown_picture_column(self, tmp_path: Path):
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "a"})
        with pytest.raises(DataError, match=r"has no column 'photo'.*Set data.image_column"):
            records(tmp_path, image_column="photo")

    @pytest.mark.parametrize(
        ("column", "setting"),
        [
            ("file_name", "image"),
            ("image", "image"),
            ("image_file_name", "image"),
            ("photo", "photo"),
            ("photo_file_name", "photo"),
        ],
    )
    def test_where_the_picture_may_stand(self, tmp_path: Path, column: str, setting: str):
        draw(tmp_path, "a.png")
        write_jsonl(tmp_path, {column: "a.png", "text": "a"})
        assert captions(tmp_path, image_column=setting) == {"a.png": ("a",)}

    def test_another_caption_column(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "a", "caption": "b"})
        assert captions(tmp_path, caption_column="caption") == {"a.png": ("b",)}


class TestCsv:
    def test_quotes_commas_and_newlines(self, tmp_path: Path):
        draw(tmp_path, "a.png", "b.png")
        table = '\ufeff\r\nfile_name,text\r\na.png,"a ""red"", old\r\nhouse"\r\n\r\nb.png, b \r\n,\r\n'
        (tmp_path / "metadata.csv").write_bytes(table.encode())
        assert captions(tmp_path) == {"a.png": ('a "red", old\r\nhouse',), "b.png": ("b",)}

    @pytest.mark.parametrize("sign", [";", "\t"])
    def test_other_delimiters(self, tmp_path: Path, sign: str):
        draw(tmp_path, "a.png")
        (tmp_path / "metadata.csv").write_text(f"file_name{sign}text\na.png{sign}red, old\n", encoding="utf-8")
        assert captions(tmp_path) == {"a.png": ("red, old",)}

    def test_a_short_row_has_no_caption(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        (tmp_path / "METADATA.CSV").write_text("file_name,text\na.png\n", encoding="utf-8")
        assert captions(tmp_path) == {"a.png": ()}

    def test_an_unquoted_comma_is_refused_where_it_stands(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        (tmp_path / "metadata.csv").write_text("file_name,text\na.png,ok\na.png,red, old\n", encoding="utf-8")
        with pytest.raises(DataError, match="more fields than the header") as caught:
            records(tmp_path)
        assert caught.value.where == f"{tmp_path / 'metadata.csv'}:3"

    def test_a_lost_quotation_mark_does_not_swallow_rows(self, tmp_path: Path):
        draw(tmp_path, "a.png", "b.png")
        (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"red\nb.png,blue\n', encoding="utf-8")
        with pytest.raises(DataError, match="is not CSV"):
            records(tmp_path)

    def test_jsonl_is_read_first(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        (tmp_path / "metadata.csv").write_text("file_name,text\na.png,from csv\n", encoding="utf-8")
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "from jsonl"})
        assert captions(tmp_path) == {"a.png": ("from jsonl",)}


class TestTextFiles:
    def test_a_line_is_a_caption(self, tmp_path: Path):
        draw(tmp_path, "a.PNG", "x/b.jpg", "c.png")
        (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\n two \r\n".encode())
        (tmp_path / "x/b.TXT").write_text("three", encoding="utf-8")
        (tmp_path / "readme.txt").write_text("no caption", encoding="utf-8")
        assert captions(tmp_path) == {"a.PNG": ("one", "two"), "c.png": (), "x/b.jpg": ("three",)}

    def test_a_name_with_dots(self, tmp_path: Path):
        draw(tmp_path, "v1.2.png")
        (tmp_path / "v1.2.txt").write_text("one", encoding="utf-8")
        assert captions(tmp_path) == {"v1.2.png": ("one",)}

    def test_metadata_wins_where_both_speak(self, tmp_path: Path):
        draw(tmp_path, "a.png", "b.png")
        write_jsonl(tmp_path, {"file_name": "a.png", "text": "from metadata"})
        for name in ("a", "b"):
            (tmp_path / f"{name}.txt").write_text("from text", encoding="utf-8")
        assert captions(tmp_path) == {"a.png": ("from metadata",), "b.png": ("from text",)}


class TestParquet:
    def write(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")

    def test_rows_become_records(self, tmp_path: Path):
        draw(tmp_path, "a.png", "b.png")
        self.write(
            tmp_path, [{"file_name": "b.png", "text": ["one", "two"], "n": 1}, {"file_name": "a.png", "text": None, "n": 2}]
        )
        assert captions(tmp_path) == {"a.png": (), "b.png": ("one", "two")}

    def test_csv_is_read_first(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        self.write(tmp_path, [{"file_name": "a.png", "text": "from parquet"}])
        (tmp_path / "metadata.csv").write_text("file_name,text\na.png,from csv\n", encoding="utf-8")
        assert captions(tmp_path) == {"a.png": ("from csv",)}

    def test_a_path_that_leaves_the_folder(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        self.write(tmp_path, [{"file_name": "../a.png", "text": "x"}])
        with pytest.raises(DataError, match=r"metadata\.parquet: row 0: '\.\./a\.png' leaves the folder"):
            records(tmp_path)

    def test_a_torn_file(self, tmp_path: Path):
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"metadata\.parquet: is damaged or cut short"):
            records(tmp_path)

"""Rows of metadata.jsonl and metadata.csv, and captions of NAME.txt, as people have them: BOM, CRLF, blank lines."""

import csv
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sdjob.core.errors import DataError
from sdjob.data.reading import read_bytes

# A row as it was written: where it stands (file:line), and its fields.
RawRow = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    file_name: str
    captions: tuple[str, ...]
    where: str
    """file:line, for messages."""


def read_rows(path: Path, *, image_column: str, caption_column: str) -> list[Row]:
    """The rows of one metadata file. Raises DataError with file:line, or naming the columns that there are."""
    raw = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _jsonl_rows(path))
    if not raw:
        return []
    columns = tuple(dict.fromkeys(column for _, fields in raw for column in fields))
    picture_column = _existing(picture_columns(image_column), columns=columns, setting="data.image_column", where=str(path))
    text_column = _existing((caption_column,), columns=columns, setting="data.caption_column", where=str(path))
    return [
        Row(
            file_name=_file_name(fields.get(picture_column), column=picture_column, where=where),
            captions=_captions(fields.get(text_column), column=text_column, where=where),
            where=where,
        )
        for where, fields in raw
    ]


def picture_columns(image_column: str) -> tuple[str, ...]:
    """Where a picture's path may stand, best first: an image folder calls it `file_name` and `datasets` shows it as `image`;
    further picture columns are NAME_file_name (https://huggingface.co/docs/datasets/image_dataset)."""
    named = (f"{image_column}_file_name", image_column)
    return ("file_name", *named) if image_column == "image" else named


def one_line_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file: one for each line that is not empty."""
    return tuple(line.strip() for line in _text(path).splitlines() if line.strip())


def _existing(wanted: tuple[str, ...], *, columns: tuple[str, ...], setting: str, where: str) -> str:
    for name in wanted:
        if name in columns:
            return name
    folded = {column.casefold(): column for column in columns}
    near = difflib.get_close_matches(wanted[-1].casefold(), list(folded), n=1, cutoff=0.4)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    raise DataError(
        f"has no column {wanted[-1]!r}; its columns are {', '.join(map(repr, columns))}.{hint}",
        where=where,
        next_step=f"Set {setting}.",
    )


def _file_name(value: Any, *, column: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"names no picture: {column!r} is {value!r}.", where=where)
    if "\0" in value:
        raise DataError(f"{column!r} holds a zero byte.", where=where)
    return value.strip()


def _captions(value: Any, *, column: str, where: str) -> tuple[str, ...]:
    """None and blank text are no caption; the scan counts the pictures that end up without any."""
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"the caption in {column!r} is {text!r}, which is not text.", where=where)
    return tuple(text.strip() for text in texts if text.strip())


def _jsonl_rows(path: Path) -> Iterator[RawRow]:
    # Split at line feeds alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _json_object(line, where=f"{path}:{number}")


def _json_object(line: str, *, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()  # "\ud83d" alone is legal JSON but no text: it has no UTF-8
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg} at column {error.colno}.", where=where) from error
    except UnicodeEncodeError as error:
        raise DataError("holds half of a surrogate pair, which is no character.", where=where) from error
    if not isinstance(fields, dict):
        raise DataError('is not a JSON object such as {"file_name": "cat.png", "text": "a cat"}.', where=where)
    return fields


def _csv_rows(path: Path) -> Iterator[RawRow]:
    """Strict, because the lenient reader swallows the rest of the file after one lost quotation mark."""
    text = _text(path)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True, strict=True)
    try:
        header = next((row for row in rows if row), [])
        for row in rows:
            if any(row):  # spreadsheets write rows of nothing but commas at the end
                yield f"{path}:{rows.line_num}", _csv_fields(row, header=header, where=f"{path}:{rows.line_num}")
    except csv.Error as error:
        raise DataError(f"is not CSV: {error}.", where=f"{path}:{rows.line_num}") from error


def _csv_fields(row: list[str], *, header: list[str], where: str) -> dict[str, Any]:
    """A short row lacks its last columns; a long one is refused, since a caption would lose what follows its comma."""
    if len(row) > len(header):
        raise DataError("has more fields than the header.", where=where, next_step='Put captions that hold commas in "".')
    return dict(zip_longest(header, row, fillvalue=""))


def _delimiter(text: str) -> str:
    """A spreadsheet writes semicolons where the comma is the decimal sign; the header tells, since it holds no captions."""
    header = text.lstrip().partition("\n")[0]
    return next((sign for sign in (",", ";", "\t") if sign in header), ",")


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 (byte {error.start}).", where=str(path), next_step="Save it as UTF-8.") from error

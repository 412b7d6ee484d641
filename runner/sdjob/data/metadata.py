"""Rows of metadata.jsonl, .csv and .parquet, and captions of NAME.txt, as people have them: BOM, CRLF, blank lines."""

import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.core.errors import DataError
from sdjob.data.parquet import parquet_rows
from sdjob.data.reading import read_bytes
from sdjob.data.tables import RawRow, csv_rows, jsonl_rows

IMAGE_COLUMN, CAPTION_COLUMN = "data.image_column", "data.caption_column"


@dataclass(frozen=True, slots=True)
class Row:
    file_name: str
    captions: tuple[str, ...]
    where: str
    """file:line, for messages."""


def read_rows(path: Path, *, image_column: str, caption_column: str | None) -> list[Row]:
    """The rows of one metadata file; without captions where no column of them is named. Raises DataError with file:line, or
    naming the columns that there are."""
    wanted = (*picture_columns(image_column), *(() if caption_column is None else (caption_column,)))
    columns: dict[str, None] = {}
    raw: list[tuple[str, tuple[Any, ...]]] = []  # of a million rows only what may be wanted is kept
    for where, fields in _raw_rows(path):
        columns |= dict.fromkeys(fields)
        raw.append((where, tuple(fields.get(column) for column in wanted)))
    if not raw:
        return []
    there, name = tuple(columns), str(path)
    picture_column = existing_column(picture_columns(image_column), columns=there, setting=IMAGE_COLUMN, where=name)
    if caption_column is not None:
        existing_column((caption_column,), columns=there, setting=CAPTION_COLUMN, where=name)
    picture = wanted.index(picture_column)
    return [
        Row(
            file_name=_file_name(values[picture], column=picture_column, where=where),
            captions=captions_of(values[-1], column=caption_column, where=where) if caption_column else (),
            where=where,
        )
        for where, values in raw
    ]


def picture_columns(image_column: str) -> tuple[str, ...]:
    """Where a picture's path may stand, best first: an image folder calls it `file_name` and `datasets` shows it as `image`;
    further picture columns are NAME_file_name (https://huggingface.co/docs/datasets/image_dataset)."""
    named = (f"{image_column}_file_name", image_column)
    return ("file_name", *named) if image_column == "image" else named


def one_line_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file: one for each line that is not empty."""
    return lines_of(_text(path))


def lines_of(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def text_of(data: bytes, *, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 (byte {error.start}).", where=where, next_step="Save it as UTF-8.") from error


def captions_of(value: Any, *, column: str, where: str) -> tuple[str, ...]:
    """None and blank text are no caption; the scan counts the pictures that end up without any."""
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"the caption in {column!r} is {text!r}, which is not text.", where=where)
    return tuple(text.strip() for text in texts if text.strip())


def existing_column(wanted: tuple[str, ...], *, columns: tuple[str, ...], setting: str, where: str) -> str:
    """The first of `wanted` that there is. Raises DataError naming the columns, and the nearest to the last of `wanted`."""
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


def _raw_rows(path: Path) -> Iterator[RawRow]:
    match path.suffix.lower():
        case ".csv":
            return csv_rows(io.StringIO(_text(path), newline=""), path=str(path))
        case ".parquet":
            return parquet_rows(path)
        case _:
            # Split at line feeds alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
            return jsonl_rows(_text(path).split("\n"), path=str(path))


def _text(path: Path) -> str:
    return text_of(read_bytes(path), where=str(path))

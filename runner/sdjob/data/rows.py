"""The picture and the captions in a row of a table: Parquet, Arrow, JSON lines or CSV."""

import base64
import binascii
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sdjob.core.errors import DataError
from sdjob.data.layout import Layout
from sdjob.data.metadata import CAPTION_COLUMN, IMAGE_COLUMN, captions_of, existing_column, picture_columns
from sdjob.data.parquet import arrow_batches, arrow_columns, parquet_batches, parquet_columns
from sdjob.data.tables import table_rows

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|//")
DATA_URL = re.compile(r"data:image/[A-Za-z0-9.+-]+;base64,")
DIGITS = 9  # rows of one file: ids are sorted by their bytes


@dataclass(frozen=True)
class Row:
    number: int
    picture: bytes | str | None
    """The file's bytes, or its path, or nothing."""

    captions: tuple[str, ...]
    where: str

    @property
    def name(self) -> str:
        return f"{self.number:0{DIGITS}d}"


def read_rows_of(path: Path, *, name: str, layout: Layout, image_column: str, caption_column: str | None) -> Iterator[Row]:
    """The rows of one file, in its order. `name` is for messages. Raises DataError for what no picture can be made of."""
    read = _table if layout.kind == "table" else _columnar
    fields = read(path, name=name, layout=layout, image_column=image_column, caption_column=caption_column)
    for number, (where, image, caption) in enumerate(fields):
        yield Row(
            number,
            picture_of(image, column=image_column, where=where),
            captions_of(caption, column=caption_column or "", where=where),
            where,
        )


def picture_of(value: Any, *, column: str, where: str) -> bytes | str | None:
    """A picture's bytes, or a path. `datasets` keeps {bytes, path}, of which the bytes count where there are any."""
    if isinstance(value, dict) and value.keys() & {"bytes", "path"}:
        fields = cast("dict[str, Any]", value)
        content = fields.get("bytes")
        if content is not None:
            return _decoded(content, column=column, where=where) if isinstance(content, str) else content
        value = fields.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise DataError(
            f"{column!r} holds {_named(value)}, not a picture file's bytes or path.",
            where=where,
            next_step="Write the pictures as PNG or JPEG bytes, as the Image feature of `datasets` does.",
        )
    if match := DATA_URL.match(value):
        return _decoded(value[match.end() :], column=column, where=where)
    if URL.match(value):
        raise DataError(
            f"{column!r} holds a web address, and nothing is downloaded from the web.",
            where=where,
            next_step=f"Download the pictures into the data set first, or set {IMAGE_COLUMN} to a column that has them.",
        )
    return value.strip() or None


def referred_key(path: str, *, table: str, keys: Any, where: str) -> str | None:
    """The file in the data set that a row means: relative to its table's folder, else to the data set's. None: it is missing.

    Raises DataError for a path that leaves the data set.
    """
    slashed = path.replace("\\", "/")
    candidates = [posixpath.normpath(posixpath.join(folder, slashed)) for folder in (posixpath.dirname(table), "")]
    if "\0" in path or all(key == ".." or key.startswith(("/", "../")) for key in candidates):
        raise DataError(f"{path!r} leaves the data set.", where=where, next_step="Name pictures by paths below its folder.")
    return next((key for key in candidates if key in keys), None)


def _columnar(
    path: Path, *, name: str, layout: Layout, image_column: str, caption_column: str | None
) -> Iterator[tuple[str, Any, Any]]:
    columns_of, rows_of = (parquet_columns, parquet_batches) if layout.kind == "parquet" else (arrow_columns, arrow_batches)
    image, caption = _chosen(columns_of(path, name=name), image=image_column, caption=caption_column, where=name)
    columns = (image,) if caption is None else (image, caption)
    for number, fields in enumerate(rows_of(path, columns=columns, name=name)):
        yield f"{name}: row {number}", fields[image], caption and fields.get(caption)


def _table(
    path: Path, *, name: str, layout: Layout, image_column: str, caption_column: str | None
) -> Iterator[tuple[str, Any, Any]]:
    """Two passes: in JSON lines any row may be the first to have a column."""
    columns = tuple(dict.fromkeys(column for _, fields in table_rows(path, name=name, **layout.options) for column in fields))
    if not columns:
        return
    image, caption = _chosen(columns, image=image_column, caption=caption_column, where=name)
    for where, fields in table_rows(path, name=name, **layout.options):
        yield where, fields.get(image), caption and fields.get(caption)


def _chosen(columns: tuple[str, ...], *, image: str, caption: str | None, where: str) -> tuple[str, str | None]:
    """The column of this very name first; else a path's, as in metadata.csv."""
    images = (image,) if image in columns else picture_columns(image)
    return (
        existing_column(images, columns=columns, setting=IMAGE_COLUMN, where=where),
        caption and existing_column((caption,), columns=columns, setting=CAPTION_COLUMN, where=where),
    )


def _decoded(text: str, *, column: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{column!r} holds bytes that are not base64: {error}.", where=where) from error


def _named(value: Any) -> str:
    if isinstance(value, list):
        return "a list (an array of pixels?)"
    return f"a {type(value).__name__}"

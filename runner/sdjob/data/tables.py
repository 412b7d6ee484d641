"""Rows of CSV, JSON and JSON-lines files, one after the other, strictly: what is cut off or torn is an error with its line."""

import csv
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from sdjob.core.errors import DataError

# A row as it was written: where it stands (file:line), and its fields.
RawRow = tuple[str, dict[str, Any]]
LARGEST_JSON_BYTES = 256 * 1024 * 1024  # one JSON document is parsed as a whole, into some ten times its size
DELIMITERS = (",", ";", "\t")


def table_rows(path: Path, *, name: str, delimiter: str | None = None, field: str | None = None) -> Iterator[RawRow]:
    """The rows of a table as its name's ending says, read as they are asked for.

    delimiter: of CSV; None: the header tells. field: where the rows stand in a JSON document that is an object.
    """
    match PurePosixPath(name).suffix.lower():
        case ".csv" | ".tsv" as ending:
            with _opened(path, name=name, newline="") as lines:
                yield from csv_rows(lines, path=name, delimiter=delimiter or ("\t" if ending == ".tsv" else None))
        case ".json" if field is not None or not _is_lines(path, name=name):
            yield from _document_rows(path, name=name, field=field)
        case _:
            with _opened(path, name=name, newline="\n") as lines:
                yield from jsonl_rows(lines, path=name)


def jsonl_rows(lines: Iterable[str], *, path: str) -> Iterator[RawRow]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", json_object(line, where=f"{path}:{number}")


def json_object(text: str, *, where: str) -> dict[str, Any]:
    fields = _json(text, where=where)
    if not isinstance(fields, dict):
        raise DataError('is not a JSON object such as {"file_name": "cat.png", "text": "a cat"}.', where=where)
    return fields


def csv_rows(lines: Iterable[str], *, path: str, delimiter: str | None = None) -> Iterator[RawRow]:
    """Strict, because the lenient reader swallows the rest of the file after one lost quotation mark."""
    lines, head = iter(lines), list[str]()
    for line in lines:
        head.append(line)
        if line.strip():
            break
    sign = delimiter or _delimiter_of("".join(head))
    rows = csv.reader(chain(head, lines), delimiter=sign, skipinitialspace=True, strict=True)
    try:
        header = next((row for row in rows if row), [])
        for row in rows:
            if any(row):  # spreadsheets write rows of nothing but commas at the end
                where = f"{path}:{rows.line_num}"
                yield where, _csv_fields(row, header=header, where=where)
    except csv.Error as error:
        raise DataError(f"is not CSV: {error}.", where=f"{path}:{rows.line_num}") from error


def _json(text: str, *, where: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # "\\ud83d" alone is legal JSON but no text: it has no UTF-8
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg} (column {error.colno}).", where=where) from error
    except UnicodeEncodeError as error:
        raise DataError("holds half of a surrogate pair, which is no character.", where=where) from error
    return value


def _csv_fields(row: list[str], *, header: list[str], where: str) -> dict[str, Any]:
    """A short row lacks its last columns; a long one is refused, since a caption would lose what follows its comma."""
    if len(row) > len(header):
        raise DataError("has more fields than the header.", where=where, next_step='Put captions that hold commas in "".')
    return dict(zip_longest(header, row, fillvalue=""))


def _delimiter_of(header: str) -> str:
    """A spreadsheet writes semicolons where the comma is the decimal sign; the header tells, since it holds no captions."""
    return next((sign for sign in DELIMITERS if sign in header), ",")


def _is_lines(path: Path, *, name: str) -> bool:
    """Whether a .json file is JSON lines, as `datasets` writes and reads them under this name too: its first line is a whole
    object, and it is not the only one; or there is nothing in it."""
    with _opened(path, name=name, newline="\n") as lines:
        filled = (line for line in lines if line.strip())
        first = next(filled, "")
        if first.lstrip()[:1] not in {"{", ""}:
            return False
        try:
            json.loads(first or "{}")
        except json.JSONDecodeError:
            return False
        return True


def _document_rows(path: Path, *, name: str, field: str | None) -> Iterator[RawRow]:
    if path.stat().st_size > LARGEST_JSON_BYTES:
        raise DataError("is one JSON document of more than 256 MiB.", where=name, next_step="Write a row a line (.jsonl).")
    with _opened(path, name=name, newline=None) as file:
        rows = _json(file.read(), where=name)
    if field is not None:
        rows = rows.get(field) if isinstance(rows, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"is no list of rows{f' under {field!r}' if field else ''}.", where=name, next_step="Write a row a line.")
    for number, row in enumerate(rows):
        yield f"{name}: row {number}", row


@contextmanager
def _opened(path: Path, *, name: str, newline: str | None) -> Generator[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error.reason}.", where=name, next_step="Save it as UTF-8.") from error

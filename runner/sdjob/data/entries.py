"""Entries of the data index and their lines: one picture each, with the same bytes for the same content."""

import json
import re
from dataclasses import dataclass
from typing import Any

from sdjob.core.errors import DataError

VERSION = 1
VERSION_OF_SEVERAL = 2  # every line says which source its picture is of
FIELDS = {"id", "sha256", "width", "height", "captions"}

# A line as `line_of` writes it, and no other.
STRING = rb'"(?!")[^"\\\x00-\x1f]*+(?:\\(?:["\\bfnrt]|u00[01][0-9a-f])[^"\\\x00-\x1f]*+)*+"'
_PIXELS = rb"[1-9][0-9]{0,8}"
_BEGINNING = rb'\{"captions":\[' + STRING + rb"(?:," + STRING + rb')*+\],"height":' + _PIXELS + rb',"id":' + STRING
_SOURCE = rb'"source":(?:0|[1-9][0-9]{0,3}),'


def lines_of_form(*, several: bool) -> re.Pattern[bytes]:
    """As many whole lines as follow each other; perhaps none."""
    source = _SOURCE if several else b""
    line = _BEGINNING + rb',"sha256":"[0-9a-f]{64}",' + source + rb'"width":' + _PIXELS + rb"\}\n"
    return re.compile(rb"(?:" + line + rb")*+")


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    """The file's path below the folder, with forward slashes."""

    sha256: str
    """Of the file's bytes."""

    width: int
    height: int
    """In pixels, after EXIF orientation."""

    captions: tuple[str, ...]
    """At least one."""

    source: int = 0
    """Which of the job's sources has it, in the order of `spec.sources`."""


def line_of(entry: Entry, *, several: bool) -> bytes:
    fields: dict[str, Any] = {"captions": entry.captions, "height": entry.height, "id": entry.id, "sha256": entry.sha256}
    fields |= {"source": entry.source, "width": entry.width} if several else {"width": entry.width}
    return _line(fields)


def header_of(num_pictures: int, *, several: bool) -> bytes:
    """Version and count, so that a torn copy is noticed."""
    return _line({"pictures": num_pictures, "sdjob_index": VERSION_OF_SEVERAL if several else VERSION})


def entry_of(line: bytes) -> Entry:
    """Of a line that is known to be whole."""
    fields = json.loads(line.decode())
    return Entry(**{**fields, "captions": tuple(fields["captions"])})


def fields_of(line: bytes, number: int) -> dict[str, Any]:
    """Raises DataError for a line that is no object."""
    try:
        fields = json.loads(line.decode())
    except json.JSONDecodeError as error:
        raise damage(number, f"is not JSON: {error.msg}.") from error
    if not isinstance(fields, dict):
        raise damage(number, "is not an object.")
    return fields


def what_is_wrong(line: bytes, number: int, *, several: bool) -> DataError:
    """With a line that is not as `line_of` writes it."""
    fields = fields_of(line, number)
    if set(fields) != (FIELDS | {"source"} if several else FIELDS):
        return damage(number, f"has the fields {sorted(fields)}.")
    for name, fits in (
        ("id", _is_text),
        ("sha256", _is_sha256),
        ("width", _is_size),
        ("height", _is_size),
        ("captions", _are_texts),
        ("source", _is_number),
    ):
        if name in fields and not fits(fields[name]):
            return damage(number, f"{name} is {fields[name]!r}.")
    return damage(number, "is not as sdjob writes it.")


def damage(number: int, what: str) -> DataError:
    return DataError(what, where=f"data index, line {number}")


def _line(fields: dict[str, Any]) -> bytes:
    """The names come in their order."""
    return (json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0  # not isinstance: True is an int


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(text) for text in value)

"""Lines of the data index: one picture each, with the same bytes for the same content."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sdjob.core.errors import DataError

VERSION = 1
VERSION_OF_SEVERAL = 2  # every line says which source its picture is of
FIELDS = {"id", "sha256", "width", "height", "captions"}


@dataclass(frozen=True)
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


def to_jsonl(entries: Sequence[Entry]) -> bytes:
    """A line with version and count, so that a torn copy is noticed; then a line for each picture."""
    several = any(entry.source for entry in entries)
    header = {"pictures": len(entries), "sdjob_index": VERSION_OF_SEVERAL if several else VERSION}
    lines = [_json(header), *(_json(_fields(entry, several=several)) for entry in entries)]
    return "".join(line + "\n" for line in lines).encode()


def from_jsonl(data: bytes) -> tuple[Entry, ...]:
    """Raises DataError, naming the line, for anything that `to_jsonl` does not write."""
    header, *rows = [_object(line, number) for number, line in enumerate(_lines(data), start=1)]
    version = header.get("sdjob_index")
    if version not in {VERSION, VERSION_OF_SEVERAL}:
        raise _damage(1, f"version {version!r} is not {VERSION} or {VERSION_OF_SEVERAL}, which this sdjob reads.")
    if header.get("pictures") != len(rows):
        raise _damage(1, f"promises {header.get('pictures')!r} pictures, {len(rows)} follow.")
    several = version == VERSION_OF_SEVERAL
    entries = tuple(_entry(fields, number, several=several) for number, fields in enumerate(rows, start=2))
    if len({(entry.source, entry.id) for entry in entries}) != len(entries):
        raise _damage(1, "the same picture stands twice.")
    return entries


def _fields(entry: Entry, *, several: bool) -> dict[str, Any]:
    fields = asdict(entry)
    return fields if several else {name: fields[name] for name in FIELDS}


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _lines(data: bytes) -> list[str]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damage(data.count(b"\n", 0, error.start) + 1, "is not UTF-8.") from error
    if not text.endswith("\n"):
        raise _damage(text.count("\n") + 1, "ends in the middle of a line.")
    return text[:-1].split("\n")


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise _damage(number, f"is not JSON: {error.msg}.") from error
    if not isinstance(fields, dict):
        raise _damage(number, "is not an object.")
    return fields


def _entry(fields: dict[str, Any], number: int, *, several: bool) -> Entry:
    if set(fields) != (FIELDS | {"source"} if several else FIELDS):
        raise _damage(number, f"has the fields {sorted(fields)}.")
    for name, fits in (
        ("id", _is_text),
        ("sha256", _is_sha256),
        ("width", _is_size),
        ("height", _is_size),
        ("captions", _are_texts),
        ("source", _is_number),
    ):
        if name in fields and not fits(fields[name]):
            raise _damage(number, f"{name} is {fields[name]!r}.")
    return Entry(**{**fields, "captions": tuple(fields["captions"])})


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


def _damage(number: int, what: str) -> DataError:
    return DataError(what, where=f"data index, line {number}")

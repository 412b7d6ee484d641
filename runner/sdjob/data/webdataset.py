"""Samples of a webdataset shard: a tar archive whose files NAME.EXTENSION with the same NAME are one sample.

The archive is read as a stream and nothing of it is ever extracted to a path of its own choosing. Its headers and, where it is
compressed, its checksum are held to strictly: Python's tarfile takes a damaged header in the middle for the archive's end.
"""

import gzip
import hashlib
import posixpath
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import HeaderError, ReadError, TarError, TarFile, TarInfo
from typing import IO, Any

from sdjob.core.errors import DataError
from sdjob.data.folder import PICTURE_EXTENSIONS, is_hidden
from sdjob.data.metadata import CAPTION_COLUMN, IMAGE_COLUMN, captions_of, existing_column, lines_of, text_of
from sdjob.data.tables import json_object

# https://github.com/webdataset/webdataset#the-webdataset-format: the name ends at the first dot, all behind it is the extension
NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
LARGEST_NOTE_BYTES = 16 * 1024 * 1024  # of a caption or a json of one sample
UNSAFE = re.compile(r"[%/\\\x00-\x1f\x7f\ud800-\udfff]|\A\.")
LONGEST_NAME = 180  # bytes; file systems allow 255, and an extension follows
ANEW = "Write the shard again without it, or take the shard out of the data set."
DEFAULT_IMAGE, DEFAULT_CAPTION = "image", "text"


@dataclass
class Sample:
    name: str
    pictures: dict[str, Any] = field(default_factory=dict)
    """What `keep` made of each picture, by extension."""

    notes: dict[str, bytes | None] = field(default_factory=dict)
    """The other files, by extension; None for those that were not read."""

    @property
    def safe_name(self) -> str:
        return safe_name(self.name)

    def fields(self, *, where: str) -> dict[str, Any]:
        """What its json holds."""
        note = self.notes.get("json")
        return {} if note is None else json_object(text_of(note, where=where), where=where)


@dataclass(frozen=True)
class Columns:
    """As `datasets` shows a sample: its extensions, and the keys of its json beside them."""

    image: str
    caption: str | None
    """None: they are not read."""

    @property
    def captions(self) -> tuple[str, ...]:
        """Where the captions may stand, best first."""
        if self.caption is None:
            return ()
        return ("txt", "text", "caption") if self.caption == DEFAULT_CAPTION else (self.caption,)

    def is_picture(self, extension: str) -> bool:
        return extension == self.image or (self.image == DEFAULT_IMAGE and f".{extension}" in PICTURE_EXTENSIONS)


def read_samples(path: Path, *, name: str, columns: Columns, keep: Callable[[str, IO[bytes]], Any]) -> list[Sample]:
    """All samples of a shard; their files need not stand together. `keep` is given each picture that may be the sample's:
    a name that is safe for one file, and its content.

    Raises DataError for an archive that is torn or damaged, holds links or devices, or names that lead out of it.
    """
    samples: dict[str, Sample] = {}
    with _members(path, name=name) as members:
        for member, content in members:
            match = NAME.fullmatch(member)
            if not match or is_hidden(member):
                continue
            sample = samples.setdefault(match[1], Sample(match[1]))
            _take(sample, match[2].lower(), content, columns=columns, keep=keep, where=f"{name}: {member}")
    return list(samples.values())


def picture_and_captions(sample: Sample, *, columns: Columns, where: str) -> tuple[Any, tuple[str, ...]]:
    """What was kept of the sample's picture (None: it has none), and its captions."""
    where = f"{where}: {sample.name}"
    if len(sample.pictures) > 1 and columns.image not in sample.pictures:
        there = ", ".join(map(repr, sorted(sample.pictures)))
        raise DataError(f"has several pictures: {there}.", where=where, next_step=f"Set {IMAGE_COLUMN} to one of them.")
    picture = sample.pictures.get(columns.image) or next(iter(sample.pictures.values()), None)
    return picture, _captions(sample, columns=columns, where=where)


def check_columns(samples: list[Sample], *, columns: Columns, where: str) -> None:
    """Raises DataError naming the columns where no sample of a shard has the one that was asked for."""
    there = dict.fromkeys(name for sample in samples for name in (*sample.pictures, *sample.notes))
    there |= dict.fromkeys(name for sample in samples for name in sample.fields(where=f"{where}: {sample.name}.json"))
    if samples and not any(sample.pictures for sample in samples):
        existing_column((columns.image,), columns=tuple(there), setting=IMAGE_COLUMN, where=where)
    if samples and columns.captions:
        existing_column(columns.captions, columns=tuple(there), setting=CAPTION_COLUMN, where=where)


def safe_name(name: str) -> str:
    """One file's name for a sample's: what could mean a folder, or be no text, is spelled %XX; a very long one is cut, with
    what tells it from others of the same beginning."""
    spelled = UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    if len(spelled.encode()) <= LONGEST_NAME:
        return spelled
    digest = hashlib.sha256(spelled.encode()).hexdigest()[:16]
    return f"{spelled.encode()[: LONGEST_NAME - 17].decode(errors='ignore')}~{digest}"


def _take(
    sample: Sample, extension: str, content: IO[bytes], *, columns: Columns, keep: Callable[[str, IO[bytes]], Any], where: str
) -> None:
    if extension in sample.pictures or extension in sample.notes:
        raise DataError("stands twice in the archive.", where=where, next_step="Write the shard again.")
    if columns.is_picture(extension):
        sample.pictures[extension] = keep(sample.safe_name, content)
        return
    note = content.read(LARGEST_NOTE_BYTES + 1) if extension in {"json", *columns.captions} else None
    if note is not None and len(note) > LARGEST_NOTE_BYTES:
        raise DataError(f"is no caption: it has more than {LARGEST_NOTE_BYTES} bytes.", where=where)
    sample.notes[extension] = note


def _captions(sample: Sample, *, columns: Columns, where: str) -> tuple[str, ...]:
    """A file's non-empty lines, as in an image folder's NAME.txt; or else the value in the json."""
    for column in columns.captions:
        note = sample.notes.get(column)
        if note is not None and column != "json":
            return lines_of(text_of(note, where=f"{where}.{column}"))
    fields = sample.fields(where=f"{where}.json")
    found = next((column for column in columns.captions if column in fields), columns.caption)
    return captions_of(fields.get(found), column=found, where=f"{where}.json") if found else ()


class _StrictHeader(TarInfo):
    """Turns into errors what tarfile takes for the end of an archive: only a block of zeros is one."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> TarInfo:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros; the class has no public name
                raise
            raise ReadError(str(error)) from error


@contextmanager
def _members(path: Path, *, name: str) -> Generator[Iterator[tuple[str, IO[bytes]]]]:
    opened = gzip.open if name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            with TarFile.open(fileobj=file, mode="r|", tarinfo=_StrictHeader) as tar:
                yield _plain_files(tar, name=name)
            while file.read(1024 * 1024):  # the checksum of compressed data stands at its end
                pass
    except (TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"is damaged or cut short: {error}.", where=name, next_step="Upload the shard again, or take it out of the data set."
        ) from error


def _plain_files(tar: TarFile, *, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        if member.isdir():
            continue
        path = posixpath.normpath(member.name)
        if not member.isfile():
            raise DataError(f"holds {member.name!r}, a link or a device; only plain files are read.", where=name, next_step=ANEW)
        if member.name.startswith("/") or path == ".." or path.startswith("../"):
            raise DataError(f"holds {member.name!r}, a name that leads out of the archive.", where=name, next_step=ANEW)
        content = tar.extractfile(member)
        assert content is not None
        yield path, content

"""The records of an image folder: which pictures it holds, and the captions of each."""

import os
import posixpath
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdjob.core.errors import DataError
from sdjob.data.folder import Listing, contained_path, list_folder
from sdjob.data.metadata import Row, one_line_captions, read_rows


@dataclass(frozen=True, slots=True)
class Record:
    """A picture that the folder has or claims to have; whether it can be used is for the scan to say."""

    id: str
    """The file's path below the folder, with forward slashes."""

    captions: tuple[str, ...]
    """Empty where nothing was found: the scan counts such a picture as bad."""


def list_records(folder: Path, *, image_column: str, caption_column: str) -> list[Record]:
    """The records of a folder on this machine; raises what `list_folder` and `records_of` raise."""
    return records_of(list_folder(folder), image_column=image_column, caption_column=caption_column)


def records_of(
    listing: Listing, *, image_column: str, caption_column: str | None, chosen: Callable[[str], bool] = bool
) -> list[Record]:
    """The records of an image folder, sorted by the bytes of their ids: the listing order of a file system never matters. Only
    ids that are `chosen` count.

    Captions come from `metadata.jsonl` or, where a folder has none, `metadata.csv` or `metadata.parquet`; sub-folders may have
    their own, whose paths are relative to themselves, as in `datasets`' imagefolder. A picture without a caption there takes
    those of NAME.txt beside it: so metadata wins where both speak. A picture has several captions when it has several rows,
    when its caption is a list of strings, or when its NAME.txt has several non-empty lines.

    Pictures without any caption, and rows whose picture is missing, are records too, so that the scan can count them.

    Raises DataError for a folder that holds nothing, for metadata that cannot be understood, and for a path or a link that
    leaves the folder.
    """
    captions = captions_of_rows(listing, image_column=image_column, caption_column=caption_column)
    ids = ids_of(listing, captions=captions, chosen=chosen)
    return [Record(id=name, captions=captions.get(name) or _captions_beside(listing, picture=name)) for name in ids]


def ids_of(listing: Listing, *, captions: Mapping[str, tuple[str, ...]], chosen: Callable[[str], bool]) -> list[str]:
    """Of the pictures that are there, and of those that metadata names; in the order of their bytes."""
    ids = sorted((name for name in {*listing.pictures, *captions} if chosen(name)), key=os.fsencode)
    if not ids:
        raise DataError(
            "holds no pictures.",
            where=str(listing.folder),
            next_step="An image folder has pictures, and metadata.jsonl, metadata.csv or NAME.txt beside NAME.png.",
        )
    return ids


def captions_of_rows(listing: Listing, *, image_column: str, caption_column: str | None) -> dict[str, tuple[str, ...]]:
    """Captions by picture, of all metadata files together, in the order of the rows."""
    captions: dict[str, tuple[str, ...]] = {}
    for name in listing.metadata:
        for row in read_rows(listing.folder / name, image_column=image_column, caption_column=caption_column):
            picture = _picture_of_row(listing, row=row, metadata=name)
            captions[picture] = captions.get(picture, ()) + row.captions
    return captions


def _picture_of_row(listing: Listing, *, row: Row, metadata: str) -> str:
    """The id that a row means. Exact spelling first, since a backslash and a decomposed accent are legal in names.

    macOS stores "e" and an accent apart (NFD) where the metadata's editor joined them (NFC).
    """
    exact = contained_path(row.file_name, metadata=metadata, where=row.where)
    if exact in listing.pictures:
        return exact
    slashed = contained_path(row.file_name.replace("\\", "/"), metadata=metadata, where=row.where)
    name = listing.normal_names.get(unicodedata.normalize("NFC", slashed), slashed)
    listing.refuse_escape(name, where=row.where)
    return name


def _captions_beside(listing: Listing, *, picture: str) -> tuple[str, ...]:
    text = listing.texts.get(posixpath.splitext(picture)[0])
    return one_line_captions(listing.folder / text) if text else ()

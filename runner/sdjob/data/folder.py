"""What lies in an image folder: pictures, metadata files and caption files, by name alone."""

import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdjob.core.errors import DataError, DeniedError, MissingError

PICTURE_EXTENSIONS = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".webp",
        ".avif",
        ".jp2",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    }
)
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of a folder's the first is read
IGNORED_FOLDERS = frozenset({"__MACOSX"})  # resource forks of zip files made on macOS: ._NAME.png is no picture
# REPOSITORY/snapshots/COMMIT/file is a link into REPOSITORY/blobs: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
CACHED_REPOSITORIES = ("datasets--", "models--")


@dataclass(frozen=True)
class Listing:
    """Paths below `folder`, with forward slashes."""

    folder: Path
    pictures: frozenset[str]
    metadata: tuple[str, ...]
    """At most one for each folder, sorted."""

    texts: dict[str, str]
    """Caption files by their path without the extension."""

    @cached_property
    def normal_names(self) -> Mapping[str, str]:
        """The pictures by their names in NFC."""
        return {unicodedata.normalize("NFC", name): name for name in self.pictures}

    def refuse_escape(self, name: str, *, where: str) -> None:
        """Raises DataError where `name` is, or passes through, a link to a place outside the folder."""
        _refuse_escape(self.folder / name, roots=_roots(self.folder), where=where)


def list_folder(folder: Path) -> Listing:
    """The listing of a folder on this machine; raises what `names_below` raises."""
    return listing_of(names_below(folder), folder=folder)


def names_below(folder: Path) -> list[str]:
    """Every file, in the order of the bytes of the names. Hidden files and folders are left out; links are followed as long as
    they stay inside the folder, or inside the Hub's cache of the repository whose snapshot the folder is.

    Raises MissingError, DeniedError, or DataError for a link that leaves the folder.
    """
    if not folder.exists():
        raise MissingError("does not exist.", where=str(folder), next_step="Set data.source to the folder that holds the data.")
    if not folder.is_dir():
        raise DataError("is a file, not a folder.", where=str(folder), next_step="Set data.source to the folder that it is in.")
    names = _walk(folder, prefix="", ancestors=(os.path.realpath(folder),), roots=_roots(folder))
    return sorted(names, key=os.fsencode)


def listing_of(names: list[str], *, folder: Path) -> Listing:
    """The listing of files that lie, or will lie, below `folder`; `names` are sorted."""
    return Listing(
        folder=folder,
        pictures=frozenset(name for name in names if extension_of(name) in PICTURE_EXTENSIONS),
        metadata=_chosen_metadata(names),
        texts={posixpath.splitext(name)[0]: name for name in names if extension_of(name) == ".txt"},
    )


def contained_path(path: str, *, metadata: str, where: str) -> str:
    """The path below the folder that a metadata file means by `path`, which is relative to that file's own folder."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(metadata), path))
    if joined == ".." or joined.startswith(("/", "../")):
        raise DataError(f"{path!r} leaves the folder.", where=where, next_step="Name pictures by paths below the folder.")
    return joined


def is_hidden(name: str) -> bool:
    """Whether a path is, or lies below, what listings leave out."""
    return any(part.startswith(".") or part in IGNORED_FOLDERS for part in name.split("/"))


def extension_of(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _walk(folder: Path, *, prefix: str, ancestors: tuple[str, ...], roots: tuple[str, ...]) -> Iterator[str]:
    """Names of files below `folder`. `ancestors` are real paths on the way down: a link back to one of them is a circle."""
    for entry in _entries(folder):
        name = prefix + entry.name
        if is_hidden(entry.name):
            continue
        linked = Path(entry.path) if entry.is_symlink() else None
        if linked is not None:
            _refuse_escape(linked, roots=roots, where=entry.path)
        if not (entry.is_dir() if linked is None else linked.is_dir()):
            yield name
        elif (real := os.path.realpath(entry.path)) not in ancestors:
            yield from _walk(Path(entry.path), prefix=f"{name}/", ancestors=(*ancestors, real), roots=roots)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise DeniedError("may not be read.", where=str(folder), next_step="Let this user list the folder.") from error


def _roots(folder: Path) -> tuple[str, ...]:
    """Real paths in which a link may end."""
    spellings = (Path(os.path.abspath(folder)), Path(os.path.realpath(folder)))  # noqa: PTH100, since `resolve` follows links
    snapshots = {
        path.parent for spelling in spellings for path in (spelling, *spelling.parents) if path.parent.name == "snapshots"
    }
    repositories = [path.parent for path in snapshots if path.parent.name.startswith(CACHED_REPOSITORIES)]
    return (os.path.realpath(folder), *(os.path.realpath(path) for path in repositories))


def _refuse_escape(path: Path, *, roots: tuple[str, ...], where: str) -> None:
    real = os.path.realpath(path)
    if not any(os.path.commonpath([root, real]) == root for root in roots):
        raise DataError(f"is a link to {real}, outside the folder.", where=where, next_step="Copy the file into the folder.")


def _chosen_metadata(names: list[str]) -> tuple[str, ...]:
    chosen: dict[str, str] = {}
    for wanted in METADATA_NAMES:
        for name in names:
            if posixpath.basename(name).lower() == wanted:
                chosen.setdefault(posixpath.dirname(name), name)
    return tuple(sorted(chosen.values(), key=os.fsencode))

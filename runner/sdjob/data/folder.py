"""What lies in an image folder: pictures, metadata files and caption files, by name alone."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
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
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")  # the first that a folder has is read, the other one is not
IGNORED_FOLDERS = frozenset({"__MACOSX"})  # resource forks of zip files made on macOS: ._NAME.png is no picture


@dataclass(frozen=True)
class Listing:
    """Paths below `folder`, with forward slashes."""

    folder: Path
    pictures: frozenset[str]
    metadata: tuple[str, ...]
    """At most one for each folder, sorted."""

    texts: dict[str, str]
    """Caption files by their path without the extension."""

    def refuse_escape(self, name: str, *, where: str) -> None:
        """Raises DataError where `name` is, or passes through, a link to a place outside the folder."""
        _refuse_escape(self.folder / name, root=os.path.realpath(self.folder), where=where)


def list_folder(folder: Path) -> Listing:
    """Hidden files and folders are left out; links are followed as long as they stay inside the folder.

    Raises MissingError, DeniedError, or DataError for a link that leaves the folder.
    """
    if not folder.exists():
        raise MissingError("does not exist.", where=str(folder), next_step="Give the folder that holds the pictures.")
    if not folder.is_dir():
        raise DataError("is a file, not a folder of pictures.", where=str(folder))
    names = sorted(_walk(folder, prefix="", ancestors=(os.path.realpath(folder),)), key=os.fsencode)
    return Listing(
        folder=folder,
        pictures=frozenset(name for name in names if _extension(name) in PICTURE_EXTENSIONS),
        metadata=_chosen_metadata(names),
        texts={posixpath.splitext(name)[0]: name for name in names if _extension(name) == ".txt"},
    )


def contained_path(path: str, *, metadata: str, where: str) -> str:
    """The path below the folder that a metadata file means by `path`, which is relative to that file's own folder."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(metadata), path))
    if joined == ".." or joined.startswith(("/", "../")):
        raise DataError(f"{path!r} leaves the folder.", where=where, next_step="Name pictures by paths below the folder.")
    return joined


def _walk(folder: Path, *, prefix: str, ancestors: tuple[str, ...]) -> Iterator[str]:
    """Names of files below `folder`. `ancestors` are real paths on the way down: a link back to one of them is a circle."""
    for entry in _entries(folder):
        name = prefix + entry.name
        if entry.name.startswith(".") or entry.name in IGNORED_FOLDERS:
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            _refuse_escape(path, root=ancestors[0], where=entry.path)
        if not entry.is_dir(follow_symlinks=False) and not (entry.is_symlink() and path.is_dir()):
            yield name
        elif (real := os.path.realpath(path)) not in ancestors:
            yield from _walk(path, prefix=f"{name}/", ancestors=(*ancestors, real))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise DeniedError("may not be read.", where=str(folder), next_step="Let this user list the folder.") from error


def _refuse_escape(path: Path, *, root: str, where: str) -> None:
    real = os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        raise DataError(f"is a link to {real}, outside the folder.", where=where, next_step="Copy the file into the folder.")


def _chosen_metadata(names: list[str]) -> tuple[str, ...]:
    chosen: dict[str, str] = {}
    for wanted in METADATA_NAMES:
        for name in names:
            if posixpath.basename(name).lower() == wanted:
                chosen.setdefault(posixpath.dirname(name), name)
    return tuple(sorted(chosen.values(), key=os.fsencode))


def _extension(name: str) -> str:
    return posixpath.splitext(name)[1].lower()

"""Pictures on this machine's scratch, fetched from one state of one place: written aside, renamed, and noted down by portion.

    data/SOURCE/LISTING/pictures/ID     what the trainer reads
    data/SOURCE/LISTING/done/PORTION    the records of a shard, or of a run of loose files, all of which are there
    data/aside-*/                       what is being fetched; an abandoned one is swept by the next process

SOURCE is a hash of the place and of what was chosen from it, LISTING one of the keys, sizes and versions of the chosen files:
so what lies here never changes, and any number of processes may use it, and add to it, at once.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sdjob.core.errors import DeniedError, StorageError
from sdjob.core.owned import owned_folder, sweep
from sdjob.data.formats import extension_of_bytes
from sdjob.data.records import Record

VERSION = 1
ASIDE = "aside-"
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """A record whose picture is on the shelf, or is known to be missing from the data."""

    record: Record
    sha256: str | None
    """None: there is no such picture, and the scan will say so."""


@dataclass(frozen=True)
class Shelf:
    folder: Path

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def put(self, stem: str, chunks: Iterable[bytes], *, aside: Path) -> tuple[str, str]:
        """A picture under `stem` with the extension that its first bytes ask for; its id and its sha256."""
        pieces = iter(chunks)
        head = next(pieces, b"")
        name = stem + extension_of_bytes(head)
        hasher, path = hashlib.sha256(), aside / secrets.token_hex(8)
        with scratch_errors(self.folder), path.open("xb") as file:
            for piece in chain([head], pieces):
                hasher.update(piece)
                file.write(piece)
        self.adopt(name, path)
        return name, hasher.hexdigest()

    def adopt(self, name: str, path: Path) -> None:
        """Takes a file from aside as the picture of this id."""
        final = self.pictures / name
        with scratch_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            path.replace(final)

    def holds(self, name: str, *, sha256: str) -> bool:
        """Whether the picture is there with the bytes that it should have."""
        return file_sha256(self.pictures / name) == sha256

    def note(self, portion: str, kept: Sequence[Kept], *, aside: Path) -> None:
        """Marks a portion as complete; comes after its last picture."""
        lines = [{"sdjob_portion": VERSION, "records": len(kept)}, *map(_line, kept)]
        path, final = aside / secrets.token_hex(8), self._note(portion)
        with scratch_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            path.replace(final)

    def noted(self, portion: str, *, check_stop: Callable[[], None]) -> list[Record] | None:
        """The records of a complete portion, every byte of whose pictures was read again; None where it must be fetched."""
        kept = self._read_note(portion)
        for one in kept or ():
            check_stop()
            if one.sha256 is not None and not self.holds(one.record.id, sha256=one.sha256):
                return None
        return None if kept is None else [one.record for one in kept]

    def is_noted(self, portion: str) -> bool:
        return self._note(portion).exists()

    def _note(self, portion: str) -> Path:
        return self.folder / "done" / hashlib.sha256(os.fsencode(portion)).hexdigest()

    def _read_note(self, portion: str) -> list[Kept] | None:
        """None for a torn note too: then the portion is fetched again."""
        try:
            header, *lines = [json.loads(line) for line in self._note(portion).read_text(encoding="utf-8").splitlines()]
            kept = [Kept(Record(line["id"], tuple(line["captions"])), line["sha256"]) for line in lines]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return kept if header == {"sdjob_portion": VERSION, "records": len(kept)} else None


def shelves(root: Path) -> Iterator[Shelf]:
    """Those of one source, for every state of it that was fetched to this machine; the newest first."""
    try:
        folders = sorted(root.iterdir(), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    except FileNotFoundError:
        return iter(())
    return (Shelf(folder) for folder in folders)


def file_sha256(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"scratch cannot be read: {error.strerror}.", where=str(path)) from error


def chunks_of(file: Any) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK_BYTES), b"")


@contextmanager
def aside_folder(root: Path) -> Generator[Path]:
    """A folder of this process's own, gone at the end; after a sudden death the next process removes it."""
    with scratch_errors(root):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(root, pattern=f"{ASIDE}*")
    with owned_folder(root / f"{ASIDE}{secrets.token_hex(8)}") as folder:
        yield folder


def require_space(size_bytes: int, *, folder: Path) -> None:
    """Raises StorageError where scratch has no room for so many bytes more."""
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise StorageError(
            f"scratch is too small: the data needs {size_bytes / 1e9:.1f} GB more, {free_bytes / 1e9:.1f} GB are free.",
            where=str(folder),
            next_step="Free some space, set run.scratch to a larger disk, or set data.max_samples.",
        )


@contextmanager
def scratch_errors(path: Path) -> Generator[None]:
    try:
        yield
    except PermissionError as error:
        raise DeniedError(f"scratch refuses: {error.strerror}.", where=str(path), next_step="Set run.scratch.") from error
    except OSError as error:
        root = next(parent for parent in (path, *path.parents) if parent.exists())
        free = f"{shutil.disk_usage(root).free / 1e9:.1f} GB are free"
        raise StorageError(
            f"scratch failed: {error.strerror}; {free}.", where=str(path), next_step="Free some space, or set run.scratch."
        ) from error


def _line(kept: Kept) -> dict[str, Any]:
    return {"id": kept.record.id, "captions": kept.record.captions, "sha256": kept.sha256}

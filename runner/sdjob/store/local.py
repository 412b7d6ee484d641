"""A folder as an object store. Durable: what a call has returned for survives a power cut."""

import errno
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sdjob.core.errors import SdjobError, StorageError, UnsoundError, UsageError
from sdjob.spec.places import Place
from sdjob.store.base import (
    TEMPORARY_FOLDER,
    ObjectDeniedError,
    ObjectInfo,
    ObjectMissingError,
    TransientStoreError,
    checked_key,
    checked_prefix,
    listed_key,
    scratch_errors,
)

CHUNK_BYTES = 4 * 1024 * 1024
ABANDONED_AFTER_S = 24 * 3600  # by the file system's own clock; a file that is being written is touched by every chunk

MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # man 2 link: EPERM says just this


class _NameTakenError(Exception):
    """The answer "exists already" of link(), kept apart from an EEXIST of any other call."""


class LocalStore:
    """Objects are files below `folder`, which is made by the first write, never by a read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._swept = False

    @classmethod
    def of(cls, place: Place) -> "LocalStore":
        return cls(place.path)

    @property
    def uri(self) -> str:
        return self._folder.as_uri()

    def read(self, key: str) -> bytes:
        with _errors_of(self._where(key)):
            return self._path(key).read_bytes()

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        with _errors_of(self._where(key)):
            source = self._path(key).open("rb")
        with source, scratch_errors(path), path.open("wb") as target:
            for chunk in _chunks(source, where=self._where(key)):
                target.write(chunk)
                if on_chunk is not None:
                    on_chunk(chunk)

    def write(self, key: str, data: bytes) -> None:
        self._place(key, fill=lambda file: _write_all(file, data), publish=os.replace)

    def write_file(self, key: str, path: Path) -> None:
        with scratch_errors(path):
            source = path.open("rb")
        with source:
            self._place(key, fill=lambda file: _copy(source, file, path=path), publish=os.replace)

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._place(key, fill=lambda file: _write_all(file, data), publish=_link)
        except _NameTakenError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = checked_prefix(prefix).rpartition("/")[0]
        return (info for info in self._walk(folder) if info.key.startswith(prefix))

    def stat(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with _errors_of(self._where(key)):
            return _info(key, path.stat()) if path.is_file() else None

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with _errors_of(self._where(key)):
                self._path(key).unlink(missing_ok=True)

    def credentials(self) -> str:
        return f"this machine's user {os.getuid()}"

    def expiry_rules(self) -> "list[str]":
        return []

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)

    def _where(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def _walk(self, folder: str) -> Iterator[ObjectInfo]:
        """Symbolic links are followed: a linked `log` folder that listed as empty would look like a run that never began."""
        for entry in self._entries(folder):
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name == TEMPORARY_FOLDER:
                continue
            if entry.is_dir():
                yield from self._walk(key)
            elif listed_key(key, size_bytes=-1, where=self.uri) and (info := self.stat(key)):
                yield info  # stat is None where it was deleted since the listing

    def _entries(self, folder: str) -> "list[os.DirEntry[str]]":
        try:
            with _errors_of(f"{self.uri}/{folder}"), os.scandir(self._folder / folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except ObjectMissingError:
            return []

    def _place(self, key: str, *, fill: Callable[[BinaryIO], None], publish: Callable[[Path, Path], None]) -> None:
        """Writes aside, then gives the file its name: the name appears with all of its bytes on the disk, or not at all."""
        final = self._path(key)
        with _errors_of(self._where(key), may_miss=False):
            aside = self._aside()
            try:
                with aside.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                self._sweep(younger=aside)
                _make_folder(final.parent)
                publish(aside, final)
                _sync_folder(final.parent)
            finally:
                aside.unlink(missing_ok=True)

    def _aside(self) -> Path:
        """One folder for all, so that what a killed process left is found; in the place, since link() needs one device."""
        folder = self._folder / TEMPORARY_FOLDER
        _make_folder(folder)
        return folder / secrets.token_hex(16)

    def _sweep(self, *, younger: Path) -> None:
        """Once: removes what killed processes left aside. Both times are the file system's, so no host's clock matters."""
        if self._swept:
            return
        self._swept = True
        now_s = younger.stat().st_mtime
        for left in younger.parent.iterdir():
            try:
                if now_s - left.stat().st_mtime > ABANDONED_AFTER_S:
                    left.unlink()
            except FileNotFoundError:
                continue  # its owner was quicker


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, version=f"{status.st_mtime_ns}-{status.st_size}")


def _link(aside: Path, final: Path) -> None:
    """link() refuses an existing name, rename() would replace it."""
    try:
        os.link(aside, final)
    except FileExistsError as error:
        raise _NameTakenError from error
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        raise UnsoundError(
            "this file system has no hard links, so it cannot create a file only where there is none.",
            where=str(final.parent),
            next_step="Keep checkpoints on another file system, or in a bucket.",
        ) from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _copy(source: BinaryIO, target: BinaryIO, *, path: Path) -> None:
    for chunk in _chunks(source, where=str(path)):
        target.write(chunk)


def _chunks(source: BinaryIO, *, where: str) -> Iterator[bytes]:
    while True:
        with _errors_of(where):
            chunk = source.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _make_folder(folder: Path) -> None:
    """A new folder's name is a line in its parent: that line is synced too, or a power cut takes the folder with all in it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors_of(where: str, *, may_miss: bool = True) -> Generator[None, None, None]:
    """may_miss: whether "no such file" is an answer about the object; to a write it is trouble like any other."""
    try:
        yield
    except OSError as error:
        if error.errno in MISSING and may_miss:
            raise ObjectMissingError("there is no such object.", where=where) from error
        raise _store_error(error, where=where) from error


def _store_error(error: OSError, *, where: str) -> SdjobError:
    if error.errno in DENIED:
        what, then = f"the file system refuses: {error.strerror}.", "Permit it to this user, or name another place."
        return ObjectDeniedError(what, where=where, next_step=then)
    if error.errno in TRANSIENT:
        return TransientStoreError(f"the file system is busy: {error.strerror}.", where=where)
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return UsageError("a file stands where a folder is needed.", where=where, next_step="Name another place, or move it.")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError("the disk is full.", where=where, next_step="Free some space, or lower checkpoint.keep.")
    return StorageError(f"the file system failed: {error.strerror}.", where=where)

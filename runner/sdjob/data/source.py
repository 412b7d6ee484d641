"""A place of data and the files that are in it: one listing, the same for every kind of place."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sdjob.core.errors import DataError, MissingError
from sdjob.core.retry import Backoff, with_retries
from sdjob.data.folder import is_hidden, names_below
from sdjob.spec.places import Place
from sdjob.store.base import ObjectInfo, ObjectMissingError, ObjectStore, TransientStoreError

Result = TypeVar("Result")

LARGEST_NOTE_BYTES = 64 * 1024 * 1024  # a data card or a state.json; more is no note


@dataclass(frozen=True)
class LocalInfos(Mapping[str, ObjectInfo]):
    """Of files on this machine, each looked at when it is asked for: of an image folder that may have a million, none ever is."""

    folder: Path
    names: Mapping[str, None]

    def __getitem__(self, key: str) -> ObjectInfo:
        self.names[key]
        return _local_info(self.folder / key, key=key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, key: object) -> bool:
        return key in self.names


@dataclass(frozen=True)
class Source:
    place: Place
    store: ObjectStore
    infos: Mapping[str, ObjectInfo]
    """By key, in the order of the keys' bytes, whatever the store's own order; hidden files are left out."""

    backoff: Backoff

    def where(self, key: str) -> str:
        return f"{self.place.uri}/{key}"

    def local(self, key: str) -> Path | None:
        """Where a file lies, if that is on this machine."""
        return self.place.path / key if self.place.scheme == "file" else None

    def note(self, key: str) -> bytes | None:
        """A small file, which may be hidden; None where there is none."""
        info = self.patiently(lambda: self.store.stat(key))
        if info is None:
            return None
        if info.size_bytes > LARGEST_NOTE_BYTES:
            raise DataError(f"has {info.size_bytes} bytes, too many for what it should be.", where=self.where(key))
        try:
            return self.patiently(lambda: self.store.read(key))
        except ObjectMissingError:
            return None

    def patiently(self, action: Callable[[], Result]) -> Result:
        return with_retries(action, transient=(TransientStoreError,), backoff=self.backoff)


def look_at(place: Place, *, store: ObjectStore, backoff: Backoff) -> Source:
    """Raises MissingError where nothing is there."""
    source = Source(place, store, {}, backoff)
    if place.scheme == "file":
        return Source(place, store, LocalInfos(place.path, dict.fromkeys(names_below(place.path))), backoff)
    found = source.patiently(lambda: list(store.list("")))
    infos = {info.key: info for info in sorted(found, key=lambda info: os.fsencode(info.key)) if not is_hidden(info.key)}
    if not infos:
        raise MissingError("holds no files.", where=place.uri, next_step="Check the spelling of data.source.")
    return Source(place, store, infos, backoff)


def fingerprint_of(infos: Iterable[ObjectInfo]) -> str:
    """sha256 over keys, sizes and versions: the same as long as the files are."""
    lines = "".join(f"{info.key}\0{info.size_bytes}\0{info.version}\n" for info in infos)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _local_info(path: Path, *, key: str) -> ObjectInfo:
    """A link that leads nowhere is listed: the scan says what is wrong with it."""
    try:
        status = path.stat()
    except OSError:
        return ObjectInfo(key, 0)
    return ObjectInfo(key, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")

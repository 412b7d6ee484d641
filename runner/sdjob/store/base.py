"""Objects in, objects out: the one seam through which anything touches a place, and the errors that every store speaks.

    MissingError  66  <- ObjectMissingError      the key is not there
    DeniedError   77  <- ObjectDeniedError       the place refuses this identity
    StorageError  74  <- TransientStoreError     may work a moment later: 503, a reset, a time-out
                      <- ObjectChangedError      somebody else changed it meanwhile
    MissingError  66                             the bucket or the repository itself is not there
    DataError     65                             an object's name is no key: it could lead out of the place

A key is a posix path relative to the place: `log/000000000017.json`. A place has no folders, only keys with slashes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sdjob.core.errors import DataError, DeniedError, MissingError, StorageError, UsageError

TEMPORARY_FOLDER = ".sdjob-tmp"  # where the local store writes aside; never a part of a key, so no key is ever unlisted


class ObjectMissingError(MissingError):
    """No object has this key. Never raised for a bucket that is missing: to the commit log this answer means a free slot."""


class ObjectDeniedError(DeniedError):
    """The place is there, but this identity may not do that in it."""


class TransientStoreError(StorageError):
    """The call may or may not have taken effect; the same call a moment later may work.

    `retry_after_s`: how long the store asked to be left alone, where it said so.
    """

    def __init__(
        self, what: str, *, where: str | None = None, next_step: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.retry_after_s = retry_after_s


class ObjectChangedError(StorageError):
    """Somebody else changed the object, or the repository, between two looks at it."""


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int
    version: str | None = None
    """Changes whenever the content does (an ETag, a generation); a token to compare, never a hash to verify with."""


class ObjectStore(Protocol):
    """A folder of objects. An object appears whole or not at all: no reader ever sees a part of a write.

    Every method may raise ObjectDeniedError, TransientStoreError, or StorageError; the store does not retry whole calls.
    """

    @property
    def uri(self) -> str:
        """The place, for messages."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object; ObjectMissingError where there is none."""
        ...

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        """The object streamed into a file, which is overwritten; `on_chunk` sees each piece in order, so that a reader can hash
        what it reads without a second pass. After an error the file holds a part."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Creates or replaces."""
        ...

    def write_file(self, key: str, path: Path) -> None:
        """Creates or replaces, streaming from a file."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Creates only if absent; False where the key exists. The only conditional write.

        After TransientStoreError the object may have landed all the same, and where a client repeated a call whose reply was
        lost, False may stand for one's own success: read the key to know.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with the prefix, in no promised order; none where nothing does.

        DataError where an object's name is no key that `checked_key` would take; folder markers are passed over.
        """
        ...

    def stat(self, key: str) -> ObjectInfo | None: ...

    def delete(self, keys: Iterable[str]) -> None:
        """Removes what is there of these; a key that is gone already is no error."""
        ...

    def credentials(self) -> str:
        """Which identity is used and whence, in a few words, never a secret; ObjectDeniedError where there is none."""
        ...

    def expiry_rules(self) -> "list[str]":
        """Rules of the place that delete objects below this prefix after a time, a sentence each; none where it has none."""
        ...


@runtime_checkable
class OneCommit(Protocol):
    """What a store of repositories can do besides: many files and deletions as one commit."""

    def head(self) -> str | None:
        """The commit that a later `expected` is compared with, and that reads see from here on; None where the repository does
        not exist yet."""
        ...

    def ensure_repository(self, *, private: bool) -> None:
        """Makes it where there is none. One that is there keeps its visibility: UsageError (64) where it is public and should
        be private."""
        ...

    def commit_tree(
        self,
        *,
        files: Mapping[str, Path | bytes],
        delete: Sequence[str],
        message: str,
        expected: str | None,
        before_upload: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        """All of it or nothing; ObjectChangedError where the head is no longer `expected` (None: whatever it is).
        `before_upload` hears the names of each portion of files before it is sent, and may raise."""
        ...


@contextmanager
def scratch_errors(path: Path) -> Generator[None, None, None]:
    """Trouble with this machine's own file, which must never be mistaken for an object that is missing or denied."""
    try:
        yield
    except OSError as error:
        then = "Make room or permit it there, or set run.scratch (or SDJOB_SCRATCH) to another folder."
        raise StorageError(f"scratch failed: {error.strerror}.", where=str(path), next_step=then) from error


def checked_key(key: str) -> str:
    """The key, where it names an object inside the place; UsageError where it could lead out of it."""
    _refuse_unsafe(key, parts=key.split("/"))
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix of a listing: empty, or the beginning of a key, a trailing slash allowed."""
    if prefix:
        _refuse_unsafe(prefix, parts=prefix.removesuffix("/").split("/"))
    return prefix


def listed_key(key: str, *, size_bytes: int, where: str) -> str | None:
    """The key of a listed object; None where it is no object of ours: a folder marker, or what a local store wrote aside."""
    parts = key.split("/")
    if (parts[-1] == "" and size_bytes == 0) or parts[0] == TEMPORARY_FOLDER:
        return None
    if _is_unsafe(key, parts=parts):
        raise DataError(
            f"an object is named {key!r}, which could lead out of a folder.", where=where, next_step="Rename or remove it."
        )
    return key


def _refuse_unsafe(key: str, *, parts: list[str]) -> None:
    if _is_unsafe(key, parts=parts):
        raise UsageError(f"the key {key!r} does not name an object inside the place.")


def _is_unsafe(key: str, *, parts: list[str]) -> bool:
    return "\0" in key or "\\" in key or any(part in {"", ".", "..", TEMPORARY_FOLDER} for part in parts)

"""Content-addressed blobs: up with their sizes checked, down with their hashes checked."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sdjob.ckpt.history import LoggedCommit
from sdjob.ckpt.manifest import DamagedBlobError, HashedFile, Manifest, StoredFile, hashed_file, snapshot_digest
from sdjob.core.errors import StorageError
from sdjob.store.base import ObjectMissingError
from sdjob.store.patient import PatientStore


def blob_key(sha256: str, *, epoch: int) -> str:
    return f"blob/{epoch}/{sha256}"


def blob_epoch(key: str) -> int | None:
    """The epoch that uploaded a blob; None for an object that is no blob."""
    match key.split("/"):
        case ["blob", epoch, _] if epoch.isascii() and epoch.isdigit():
            return int(epoch)
        case _:
            return None


class NotKeptError(StorageError):
    """The store does not have what it was just given."""


class Blobs:
    def __init__(self, store: PatientStore) -> None:
        self._store = store
        self._deleted: set[str] = set()

    def upload(self, file: HashedFile, *, epoch: int, reusable: Mapping[str, str]) -> tuple[StoredFile, int]:
        """The stored file and the bytes that had to travel: none where a blob with this content may be reused.

        reusable: sha256 -> key, of blobs that no other attempt may delete.
        """
        own_key = self._fresh_key(file.sha256, epoch=epoch)
        for key in (reusable.get(file.sha256), own_key):
            if key is not None and self._has(key, size_bytes=file.size_bytes):
                return StoredFile(sha256=file.sha256, size_bytes=file.size_bytes, blob=key), 0
        self._put(own_key, size_bytes=file.size_bytes, write=lambda: self._store.write_file(own_key, file.path))
        return StoredFile(sha256=file.sha256, size_bytes=file.size_bytes, blob=own_key), file.size_bytes

    def upload_manifest(self, manifest: Manifest, *, epoch: int) -> tuple[str, int]:
        """The manifest's sha256, by which its slot names it, and its size."""
        data = manifest.to_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        key = blob_key(sha256, epoch=epoch)
        self._put(key, size_bytes=len(data), write=lambda: self._store.write(key, data))
        return sha256, len(data)

    def manifest(self, commit: LoggedCommit) -> Manifest:
        """The manifest of a commit; DamagedBlobError where it is not, after a second read, what the slot names."""
        key, why = blob_key(commit.manifest, epoch=commit.epoch), ""
        for _ in range(2):
            try:
                data = self._store.read(key)
            except ObjectMissingError:
                why = "the manifest is missing."
                continue
            if hashlib.sha256(data).hexdigest() == commit.manifest:
                return Manifest.from_bytes(data)
            why = "the manifest's bytes do not have the hash that the log names."
        raise DamagedBlobError(why, where=key)

    def checked_manifest(self, commit: LoggedCommit) -> Manifest:
        """A commit's manifest that says the same as its slot, and whose files add up to its digest."""
        manifest = self.manifest(commit)
        if (manifest.digest, manifest.step) != (commit.digest, commit.step) or snapshot_digest(manifest.files) != commit.digest:
            raise DamagedBlobError("the manifest and the log's slot name different states.", where=f"slot {commit.slot}")
        return manifest

    def download(self, file: StoredFile, path: Path) -> None:
        """Streams a blob into a file; DamagedBlobError where it is not, after a second read, what the manifest names."""
        why = ""
        for _ in range(2):
            try:
                sha256, size_bytes = self._store.read_hashed(file.blob, path)
            except ObjectMissingError:
                why = "the blob is missing."
                continue
            if (sha256, size_bytes) == (file.sha256, file.size_bytes):
                return
            why = f"the blob's {size_bytes} bytes do not have the hash of the {file.size_bytes} bytes that were committed."
        raise DamagedBlobError(why, where=file.blob)

    def download_all(self, commit: LoggedCommit, into: Path, *, copies: Path | None = None) -> tuple[Manifest, int]:
        """A commit's files, written into a folder, and the bytes of those that did not have to travel; of a damaged commit
        nothing is left there. Raises DamagedBlobError.

        copies: a folder of this machine with folders named by digests, whose files may be those of commits.
        """
        manifest = self.checked_manifest(commit)
        paths = {name: into / name for name in manifest.files}
        near_bytes = 0
        try:
            for name, file in manifest.files.items():
                if copies is not None and self._is_near(file, copies / commit.digest / name, path=paths[name]):
                    near_bytes += file.size_bytes
                else:
                    self.download(file, paths[name])
        except BaseException:
            for path in paths.values():
                path.unlink(missing_ok=True)
            raise
        return manifest, near_bytes

    def _is_near(self, file: StoredFile, copy: Path, *, path: Path) -> bool:
        """Whether the copy could take the blob's place: hashed whole, after it was linked. A blob that is gone from the store,
        or cut, is damage all the same, and is found by its download."""
        if not copy.is_file() or not self._has(file.blob, size_bytes=file.size_bytes):
            return False
        try:
            os.link(copy, path)
            found = hashed_file(path)
        except OSError:  # another file system, or a disk that fails: the store has it too
            path.unlink(missing_ok=True)
            return False
        if (found.sha256, found.size_bytes) != (file.sha256, file.size_bytes):
            path.unlink()
            return False
        return True

    def delete(self, keys: Sequence[str]) -> None:
        self._deleted.update(keys)
        self._store.delete(keys)

    def _fresh_key(self, sha256: str, *, epoch: int) -> str:
        """Never one that was deleted: a DELETE that timed out may take effect late, and would hit what was uploaded since.
        (A manifest's key cannot come again, since it holds its step.)"""
        key, times = blob_key(sha256, epoch=epoch), 1
        while key in self._deleted:
            times += 1
            key = f"{blob_key(sha256, epoch=epoch)}-{times}"
        return key

    def _has(self, key: str, *, size_bytes: int) -> bool:
        info = self._store.stat(key)
        return info is not None and info.size_bytes == size_bytes

    def _put(self, key: str, *, size_bytes: int, write: Callable[[], None]) -> None:
        """Twice at most: a store that keeps another size than it was given is broken."""
        for _ in range(2):
            write()
            if self._has(key, size_bytes=size_bytes):
                return
        raise NotKeptError(
            f"the store does not keep the {size_bytes} bytes that were uploaded.", where=f"{self._store.uri}/{key}"
        )

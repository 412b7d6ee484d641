"""An object store whose calls are tried again while the trouble may pass. Denied and missing are answers, not trouble."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from sdjob.core.retry import Backoff, with_retries
from sdjob.store.base import ObjectChangedError, ObjectInfo, ObjectStore, TransientStoreError

Result = TypeVar("Result")


class PatientStore:
    """Every call of the seam that is safe to repeat. `create` is repeated too: False then may mean that an earlier try had
    landed and only its reply was lost, so the caller reads what is there before it believes the refusal."""

    def __init__(self, store: ObjectStore, *, backoff: Backoff) -> None:
        self._store = store
        self._backoff = backoff

    @property
    def uri(self) -> str:
        return self._store.uri

    def read(self, key: str) -> bytes:
        return self._patiently(lambda: self._store.read(key))

    def read_hashed(self, key: str, path: Path) -> tuple[str, int]:
        """Streams an object into a file; the sha256 and the size of what was read. Each try begins anew, hash and file."""

        def attempt() -> tuple[str, int]:
            hasher, sizes = hashlib.sha256(), list[int]()

            def see(chunk: bytes) -> None:
                hasher.update(chunk)
                sizes.append(len(chunk))

            self._store.read_to(key, path, on_chunk=see)
            return hasher.hexdigest(), sum(sizes)

        return self._patiently(attempt)

    def write(self, key: str, data: bytes) -> None:
        self._patiently(lambda: self._store.write(key, data))

    def write_file(self, key: str, path: Path) -> None:
        self._patiently(lambda: self._store.write_file(key, path))

    def create(self, key: str, data: bytes) -> bool:
        return self._patiently(lambda: self._store.create(key, data))

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        """`on_chunk` sees the pieces of a failed try too; whoever hashes takes `read_hashed`."""
        self._patiently(lambda: self._store.read_to(key, path, on_chunk=on_chunk))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._patiently(lambda: [*self._store.list(prefix)]))

    def keys(self, prefix: str) -> "list[str]":
        """Sorted here, since not every server lists in byte order."""
        return self._patiently(lambda: sorted(info.key for info in self._store.list(prefix)))

    def stat(self, key: str) -> ObjectInfo | None:
        return self._patiently(lambda: self._store.stat(key))

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        self._patiently(lambda: self._store.delete(batch))

    def credentials(self) -> str:
        return self._patiently(self._store.credentials)

    def expiry_rules(self) -> "list[str]":
        return self._patiently(self._store.expiry_rules)

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """An object that was replaced while it was read is whole again now."""
        return with_retries(action, transient=(TransientStoreError, ObjectChangedError), backoff=self._backoff)

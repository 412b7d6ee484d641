"""An object store in memory, with faults: what a bucket, a network or a sudden death can do to each call.

Several stores over the same `objects` are several clients of one bucket, each with its own calls and faults.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sdjob.store.base import ObjectInfo, ObjectMissingError, TransientStoreError, checked_key, checked_prefix, listed_key

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    number: int
    """From 0, over all calls of one client."""
    method: str
    key: str


Hook = Callable[[Call], None]


class Crash(BaseException):
    """The process dies here: no handler of errors may stop it, and the client makes no further call."""


class MemoryStore:
    """Keeps the protocol's promises; `before`, `after`, `honest`, `relist` and `damage` break them one by one."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects: dict[str, bytes] = {} if objects is None else objects
        self.calls: list[Call] = []
        self.before: list[Hook] = []
        self.after: list[Hook] = []
        self.honest = True
        self.relist: Callable[[list[str]], list[str]] = lambda keys: keys[::-1]  # no order is promised
        self.damage: Callable[[str, bytes], bytes] = lambda key, data: data
        self._crashed = False

    @property
    def uri(self) -> str:
        return "memory://run"

    def client(self) -> "MemoryStore":
        return MemoryStore(self.objects)

    def read(self, key: str) -> bytes:
        return self._call("read", key, lambda: self._get(key))

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        data = self._call("read_to", key, lambda: self._get(key))
        path.write_bytes(data)
        for start in range(0, len(data), 7) if on_chunk else ():
            on_chunk(data[start : start + 7])

    def write(self, key: str, data: bytes) -> None:
        self._call("write", key, lambda: self._put(key, data))

    def write_file(self, key: str, path: Path) -> None:
        self._call("write_file", key, lambda: self._put(key, path.read_bytes()))

    def create(self, key: str, data: bytes) -> bool:
        return self._call("create", key, lambda: self._create(key, data))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        checked_prefix(prefix)
        return iter(self._call("list", prefix, lambda: self._infos(prefix)))

    def stat(self, key: str) -> ObjectInfo | None:
        checked_key(key)
        return self._call("stat", key, lambda: self._info(key) if key in self.objects else None)

    def delete(self, keys: Iterable[str]) -> None:
        batch = [checked_key(key) for key in keys]
        self._call("delete", " ".join(batch), lambda: [self.objects.pop(key, None) for key in batch])

    def credentials(self) -> str:
        return "none needed"

    def expiry_rules(self) -> "list[str]":
        return []

    def _get(self, key: str) -> bytes:
        if checked_key(key) not in self.objects:
            raise ObjectMissingError("there is no such object.", where=key)
        return self.damage(key, self.objects[key])

    def _infos(self, prefix: str) -> "list[ObjectInfo]":
        keys = self.relist([key for key in list(self.objects) if key.startswith(prefix)])
        return [self._info(key) for key in keys if listed_key(key, size_bytes=len(self.objects[key]), where=self.uri)]

    def _info(self, key: str) -> ObjectInfo:
        data = self.objects[key]
        return ObjectInfo(key, len(data), version=hashlib.md5(data).hexdigest())  # as an ETag

    def _put(self, key: str, data: bytes) -> None:
        self.objects[checked_key(key)] = data

    def _create(self, key: str, data: bytes) -> bool:
        if self.honest and checked_key(key) in self.objects:
            return False
        self._put(key, data)
        return True

    def _call(self, method: str, key: str, action: Callable[[], Result]) -> Result:
        if self._crashed:
            raise Crash
        call = Call(len(self.calls), method, key)
        self.calls.append(call)
        try:
            for hook in self.before:
                hook(call)
            try:
                result = action()
            finally:  # a 404 is a reply too
                for hook in self.after:
                    hook(call)
        except Crash:
            self._crashed = True
            raise
        return result


def crash_at(number: int) -> Hook:
    """Death at a client's n-th call: as a `before` hook it does not happen, as an `after` hook it did."""

    def hook(call: Call) -> None:
        if call.number == number:
            raise Crash

    return hook


def fail(error: Exception, *, method: str, key: str = "", times: int = 1) -> Hook:
    """An error for the next calls of a method whose key begins so. As an `after` hook: done, but the reply is lost."""
    left = [times]

    def hook(call: Call) -> None:
        if call.method == method and call.key.startswith(key) and left[0]:
            left[0] -= 1
            raise error

    return hook


def busy() -> TransientStoreError:
    return TransientStoreError("503 Slow Down")


def flipped(data: bytes, *, at: int = 0) -> bytes:
    """The bytes with one bit turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

"""The one bucket, and a client of it for each process: every call hands the baton over first, and may go wrong.

What takes effect is told to the checker at that moment, in the order in which it happened.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sdjob.store.base import ObjectDeniedError, ObjectInfo, ObjectMissingError, TransientStoreError
from simulator.scheduler import Call, Crash, Director, Fate, Scheduler
from simulator.small_files import got, put

LISTINGS_KEPT = 12  # how many states back a stale listing can be


class Witness(Protocol):
    """Who is told of every effect, in order."""

    def created(self, key: str, data: bytes, *, actor: str) -> None: ...
    def wrote(self, key: str, data: bytes, *, actor: str) -> None: ...
    def deleting(self, keys: "list[str]", *, actor: str) -> None: ...
    def looked(self, key: str, *, actor: str) -> None: ...


@dataclass
class Bucket:
    witness: Witness
    honest: bool = True
    """Whether `create` keeps its promise."""

    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    late: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    """Requests that are under way, whoever sent them."""

    past: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=LISTINGS_KEPT))
    """The keys as they were, the latest last."""

    def create(self, key: str, data: bytes, *, actor: str) -> bool:
        if self.honest and key in self.objects:
            return False
        self._remember()
        self.objects[key] = data
        self.witness.created(key, data, actor=actor)
        return True

    def write(self, key: str, data: bytes, *, actor: str) -> None:
        self._remember()
        self.objects[key] = data
        self.witness.wrote(key, data, actor=actor)

    def delete(self, keys: "list[str]", *, actor: str) -> None:
        self._remember()
        self.witness.deleting(keys, actor=actor)
        for key in keys:
            self.objects.pop(key, None)

    def _remember(self) -> None:
        self.past.append(tuple(self.objects))


class Client:
    """One process's view of the bucket, as an `ObjectStore`."""

    uri = "memory://run"

    def __init__(self, bucket: Bucket, *, scheduler: Scheduler, actor: str, on_call: Callable[[Call, Fate | None], None]) -> None:
        self._bucket = bucket
        self._scheduler = scheduler
        self._director: Director = scheduler.director
        self._actor = actor
        self._on_call = on_call
        self._calls = 0
        self._dead = False
        self.troubles: set[str] = set()
        """The kinds of trouble that this process has seen."""

    def read(self, key: str) -> bytes:
        fate = self._fate("read", key)
        self._bucket.witness.looked(key, actor=self._actor)
        return self._received(key, fate=fate)

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        data = self._received(key, fate=self._fate("read_to", key))
        put(path, data)
        if on_chunk is not None:
            middle = len(data) // 2
            on_chunk(data[:middle])
            on_chunk(data[middle:])

    def write(self, key: str, data: bytes) -> None:
        self._change("write", key, lambda: self._bucket.write(key, data, actor=self._actor))

    def write_file(self, key: str, path: Path) -> None:
        data = got(path)
        self._change("write_file", key, lambda: self._bucket.write(key, data, actor=self._actor))

    def create(self, key: str, data: bytes) -> bool:
        return self._change("create", key, lambda: self._bucket.create(key, data, actor=self._actor))

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        self._change("delete", " ".join(batch), lambda: self._bucket.delete(batch, actor=self._actor))

    def stat(self, key: str) -> ObjectInfo | None:
        self._fate("stat", key)
        data = self._bucket.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), version=hashlib.md5(data).hexdigest())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """A page a key, in no order; between two pages the others go on."""
        fate = self._fate("list", prefix)
        keys = [key for key in self._keys(fate) if key.startswith(prefix)]
        turn = self._director.pick(len(keys)) if keys else 0
        for key in keys[turn:] + keys[:turn]:
            yield ObjectInfo(key, len(self._bucket.objects.get(key, b"")))
            if self._scheduler.in_actor:
                self._scheduler.yield_()

    def credentials(self) -> str:
        return "none needed"

    def expiry_rules(self) -> "list[str]":
        return []

    def _keys(self, fate: Fate | None) -> "list[str]":
        if fate == "empty":
            return []
        if fate == "stale" and self._bucket.past:
            return list(self._bucket.past[self._director.pick(len(self._bucket.past))])
        return list(self._bucket.objects)[::-1]

    def _received(self, key: str, *, fate: Fate | None) -> bytes:
        if key not in self._bucket.objects:
            raise ObjectMissingError("there is no such object.", where=key)
        data = self._bucket.objects[key]
        if fate == "flip" and data:
            at = self._director.pick(len(data))
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data[: self._director.pick(len(data))] if fate == "short" and data else data

    def _change(self, method: str, key: str, effect: Callable[[], object]) -> "bool":
        """An effect, which may come late, twice, or without a reply."""
        fate = self._fate(method, key)
        if fate == "late":
            self._bucket.late.append(effect)
            raise TransientStoreError("timed out")
        result = effect()
        if fate == "twice":
            self._bucket.late.append(effect)
        if fate == "lost":
            raise TransientStoreError("connection reset")
        return bool(result)

    def _fate(self, method: str, key: str) -> Fate | None:
        if self._dead:
            raise Crash
        if not self._scheduler.in_actor:
            return None  # a thread of the actor's: the actor waits for it, so the baton stays here
        self._scheduler.yield_()
        call = Call(self._actor, self._calls, method, key)
        fate = self._director.fate(call)
        self._calls += 1
        self._on_call(call, fate)
        if fate is not None:
            self._befallen(fate)
        return fate

    def _befallen(self, fate: Fate) -> None:
        """What happens to the process, rather than to the object."""
        self.troubles.add(fate)
        if fate == "crash":
            self._dead = True
            raise Crash
        if fate == "pause":
            self._scheduler.pause()
        if fate == "denied":
            raise ObjectDeniedError("403 Forbidden")
        if fate == "busy":
            raise TransientStoreError("503 Slow Down")

"""Whole trees of objects, several at a time: hashed as they stream, each tried again on its own, a stop request heard in between.

Memory is bounded by the number of workers times what a store holds of one object; nothing is ever kept whole.
"""

import hashlib
import posixpath
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sdjob.core.errors import DataError
from sdjob.core.retry import Backoff, with_retries
from sdjob.store.base import ObjectChangedError, ObjectInfo, ObjectStore, TransientStoreError, checked_key, scratch_errors

Result = TypeVar("Result")
Item = TypeVar("Item")
Done = TypeVar("Done")
OnProgress = Callable[[int, int], None]
"""Bytes done, bytes in all. Called by the caller's own thread."""

WORKERS = 8
WORKERS_SMALL = 16  # of a small object most is waiting: 25 ms from a store they bring 1.6 times as many as 8, for the same work
SMALL_BYTES = 1024 * 1024
LOOK_S = 0.2  # how often the caller's thread looks at stop requests and shows progress
PART = ".sdjob-part"  # a file that is not whole yet; under its own name there are only whole ones


@dataclass(frozen=True)
class Fetched:
    sha256: str
    size_bytes: int


class _CancelledError(Exception):
    """Ends a worker after another one failed or the caller was asked to stop; never leaves this file."""


@dataclass
class _Tally:
    """Bytes that are done, added up over workers."""

    total_bytes: int
    done_bytes: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size_bytes: int) -> None:
        """Negative for what a failed try had done."""
        if self.cancelled.is_set() and size_bytes >= 0:
            raise _CancelledError
        with self._lock:
            self.done_bytes += size_bytes


def download_tree(
    store: ObjectStore,
    *,
    infos: Sequence[ObjectInfo],
    into: Path,
    workers: int | None = None,
    check_stop: Callable[[], None],
    on_progress: OnProgress | None = None,
    backoff: Backoff | None = None,
) -> dict[str, Fetched]:
    """Every object under its key below `into`, in the order of `infos`.

    Raises DataError where a key is a file and a folder at once or a link in `into` leads out of it; ObjectChangedError where an
    object is not of the size that was listed; else what the store raises, after retries. `check_stop` may raise what it likes.
    """
    _refuse_clashes([checked_key(info.key) for info in infos], where=store.uri)
    with scratch_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        root = into.resolve()
    patience, tally = backoff or Backoff(), _Tally(sum(info.size_bytes for info in infos))

    def fetch(info: ObjectInfo) -> Fetched:
        target = _target(info.key, into=into, root=root)
        part = target.with_name(target.name + PART)
        with scratch_errors(part):
            part.unlink(missing_ok=True)  # it could be a link: writing would follow it, a rename does not
        try:
            fetched = _patiently(lambda: _stream(store, info, part, tally), backoff=patience)
            with scratch_errors(target):
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return fetched

    workers = workers or workers_for(len(infos), tally.total_bytes)
    done = _in_parallel(fetch, infos, workers=workers, tally=tally, check_stop=check_stop, on_progress=on_progress)
    return {info.key: fetched for info, fetched in zip(infos, done, strict=True)}


def upload_tree(
    store: ObjectStore,
    *,
    files: Mapping[str, Path],
    workers: int | None = None,
    check_stop: Callable[[], None],
    on_progress: OnProgress | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Every file under its key, created or replaced. A stop request is heard between two files."""
    _refuse_clashes([checked_key(key) for key in files], where=store.uri)
    sizes = {key: _size_of(path) for key, path in files.items()}
    patience, tally = backoff or Backoff(), _Tally(sum(sizes.values()))

    def put(item: tuple[str, Path]) -> None:
        key, path = item
        tally.add(0)
        _patiently(lambda: store.write_file(key, path), backoff=patience)
        tally.add(sizes[key])

    workers = workers or workers_for(len(files), tally.total_bytes)
    _in_parallel(put, list(files.items()), workers=workers, tally=tally, check_stop=check_stop, on_progress=on_progress)


def workers_for(count: int, total_bytes: int) -> int:
    """By the mean size: each of the large ones is held in part, and asks for several ranges at a time by itself."""
    return WORKERS_SMALL if total_bytes <= count * SMALL_BYTES else WORKERS


def _stream(store: ObjectStore, info: ObjectInfo, part: Path, tally: _Tally) -> Fetched:
    hasher, read_bytes = hashlib.sha256(), 0

    def see(chunk: bytes) -> None:
        nonlocal read_bytes
        tally.add(len(chunk))
        hasher.update(chunk)
        read_bytes += len(chunk)

    tally.add(0)
    try:
        store.read_to(info.key, part, on_chunk=see)
        if read_bytes != info.size_bytes:
            what = f"has {read_bytes} bytes, and was listed with {info.size_bytes}: somebody has replaced it since."
            raise ObjectChangedError(what, where=f"{store.uri}/{info.key}", next_step="Run it again.")
    except BaseException:
        tally.add(-read_bytes)
        raise
    return Fetched(hasher.hexdigest(), read_bytes)


def _patiently(action: Callable[[], Result], *, backoff: Backoff) -> Result:
    return with_retries(action, transient=(TransientStoreError, ObjectChangedError), backoff=backoff)


def _in_parallel(
    action: Callable[[Item], Done],
    items: Sequence[Item],
    *,
    workers: int,
    tally: _Tally,
    check_stop: Callable[[], None],
    on_progress: OnProgress | None,
) -> list[Done]:
    """Results in the order of the items; the first error, or that of `check_stop`, ends all the rest."""

    def act(item: Item) -> Done:
        try:
            return action(item)
        except BaseException:
            tally.cancelled.set()  # here, so that this worker does not begin the next item
            raise

    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(act, item) for item in items]
        try:
            _watch(futures, tally=tally, check_stop=check_stop, on_progress=on_progress)
        except BaseException:
            tally.cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _watch(
    futures: Sequence[Future[Done]], *, tally: _Tally, check_stop: Callable[[], None], on_progress: OnProgress | None
) -> None:
    """Each future tells of its end by itself: to wait for the first of thousands is to look at thousands each time."""
    ended: queue.SimpleQueue[Future[Done]] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    left = len(futures)
    while left:
        for future in _taken(ended):
            left -= 1
            if not _was_cancelled(future):  # whose error made it so has ended too, or will in a moment
                future.result()
        check_stop()
        if on_progress is not None:
            on_progress(tally.done_bytes, tally.total_bytes)


def _taken(ended: "queue.SimpleQueue[Future[Done]]") -> list[Future[Done]]:
    """All that have ended since; none after a while."""
    taken: list[Future[Done]] = []
    with suppress(queue.Empty):
        taken.append(ended.get(timeout=LOOK_S))
        while True:
            taken.append(ended.get_nowait())
    return taken


def _target(key: str, *, into: Path, root: Path) -> Path:
    """Where the object goes. Links in the way are followed only as long as they stay inside `root`, which is `into` resolved."""
    target = into / checked_key(key)
    with scratch_errors(target):
        if not target.parent.resolve().is_relative_to(root) or target.is_symlink():
            raise DataError("a link in this folder leads out of it.", where=str(target), next_step="Remove it, and run it again.")
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _size_of(path: Path) -> int:
    with scratch_errors(path):
        return path.stat().st_size


def _was_cancelled(future: Future[Any]) -> bool:
    return isinstance(future.exception(), _CancelledError)


def _refuse_clashes(keys: Sequence[str], *, where: str) -> None:
    """A bucket may hold both `a` and `a/b`; a folder cannot."""
    names = set(keys)
    for key in keys:
        folder = posixpath.dirname(key)
        while folder:
            if folder in names:
                raise DataError(
                    f"{folder!r} is an object, and {key!r} needs a folder of that name.",
                    where=where,
                    next_step="Move one of them.",
                )
            folder = posixpath.dirname(folder)

"""Files of a source on this machine, for as long as they are needed."""

import secrets
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sdjob.core.errors import SdjobError, StoppedError
from sdjob.core.log import Log
from sdjob.data.shelf import Shelf, require_space
from sdjob.data.source import Source

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 1  # portions that are fetched while one is read


@dataclass(frozen=True)
class Carried:
    """Files by their keys: fetched ones lie in a folder of their own, those of a folder on this machine where they are."""

    folder: Path
    hashes: dict[str, str]
    """sha256 of what was fetched; empty where nothing had to be."""


@dataclass(frozen=True)
class Carrier:
    source: Source
    shelf: Shelf
    aside: Path
    check_stop: Callable[[], None]
    log: Log
    abandoned: threading.Event = field(default_factory=threading.Event)

    def fetch(self, keys: Sequence[str]) -> Carried:
        """Raises StorageError where scratch has no room, and what the store raises after its retries."""
        if self.source.place.scheme == "file":
            return Carried(self.source.place.path, {})
        infos = [self.source.infos[key] for key in keys]
        into = self.aside / f"fetched-{secrets.token_hex(8)}"
        if not infos:
            return Carried(into, {})
        require_space(sum(info.size_bytes for info in infos), folder=self.aside)
        from sdjob.store.transfer import download_tree  # noqa: PLC0415, a folder on this machine needs no transfer

        fetched = download_tree(
            self.source.store,
            infos=infos,
            into=into,
            check_stop=self._check,
            on_progress=self._show_progress,
            backoff=self.source.backoff,
        )
        return Carried(into, {key: one.sha256 for key, one in fetched.items()})

    def drop(self, carried: Carried) -> None:
        """Removes what was fetched; what a full or failing disk keeps goes with the whole folder aside."""
        if carried.folder.parent == self.aside:
            shutil.rmtree(carried.folder, ignore_errors=True)

    @contextmanager
    def files(self, keys: Sequence[str]) -> Generator[Carried]:
        carried = self.fetch(keys)
        try:
            yield carried
        finally:
            self.drop(carried)

    @contextmanager
    def named(self, carried: Carried) -> Generator[None]:
        """Errors about a file aside speak of the file in the place, which a person can mend."""
        try:
            yield
        except SdjobError as error:
            if error.where:
                error.where = error.where.replace(str(carried.folder), self.source.place.uri)
            raise

    def _check(self) -> None:
        self.check_stop()
        if self.abandoned.is_set():
            raise StoppedError("what was being fetched is no longer needed.")

    def _show_progress(self, done_bytes: int, of_bytes: int) -> None:
        self.log.progress(f"fetching from {self.source.place.uri}: {done_bytes / 2**20:.0f} of {of_bytes / 2**20:.0f} MiB")


def one_ahead(
    prepare: Callable[[Item], Result], items: Iterable[Item], *, abandoned: threading.Event
) -> Generator[tuple[Item, Result]]:
    """Each item with what `prepare` makes of it, in order; while one is worked on the next is prepared in a thread.

    To be closed by who takes from it: the garbage collector would do it in any thread, at the start of one even, which then
    waits for itself.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="gather")
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(prepare, item)))
            if len(pending) > AHEAD:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        abandoned.set()
        pool.shutdown(cancel_futures=True)

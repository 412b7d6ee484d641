"""Files of a distant place on this machine's scratch: fetched once, verified at every use, shared by attempts and jobs.

scratch/models/KEY/         the files; KEY follows from place, names, sizes and versions, so new content is a new folder
scratch/models/KEY.json     their sha256 as they streamed in
scratch/models/KEY.lock     held while one process fetches or verifies; others wait
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, StorageError
from sdjob.core.log import Log
from sdjob.core.owned import try_lock
from sdjob.core.retry import Backoff, with_retries
from sdjob.spec.places import Place
from sdjob.store.base import ObjectInfo, ObjectStore, TransientStoreError, scratch_errors
from sdjob.store.open import open_store
from sdjob.store.transfer import download_tree

Choose = Callable[[Sequence[str]], Sequence[str]]
WAIT_S = 0.5  # between looks at another process's lock: a stop request must be heard
FOLDER = "models"


@dataclass(frozen=True)
class Here:
    """This machine, as staging sees it."""

    scratch: Path
    check_stop: Callable[[], None]
    clock: Clock
    log: Log


@dataclass(frozen=True)
class Fetched:
    folder: Path
    hashes: dict[str, str]
    """sha256 of every chosen file, by its name."""


def fetch(place: Place, *, choose: Choose, here: Here, field: str) -> Fetched:
    """The files that `choose` takes out of the place's names.

    MissingError (66) where there are none; StorageError (74) where scratch cannot hold them; else what store and `choose` raise.
    """
    store = open_store(place)
    chosen = _chosen(store, choose=choose, here=here, field=field)
    root = here.scratch / FOLDER
    with scratch_errors(root):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _key(store.uri, chosen)
    with locked(root / f"{key}.lock", here=here):
        known = verified(root / key, receipt=root / f"{key}.json", here=here)
        return Fetched(root / key, known or _download(store, chosen, into=root / key, here=here))


def listed(store: ObjectStore, *, clock: Clock) -> list[ObjectInfo]:
    return with_retries(lambda: list(store.list("")), transient=(TransientStoreError,), backoff=Backoff(clock=clock))


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chosen(store: ObjectStore, *, choose: Choose, here: Here, field: str) -> list[ObjectInfo]:
    infos = {info.key: info for info in listed(store, clock=here.clock)}
    if not infos:
        raise MissingError(f"{store.uri} holds nothing.", where=field, next_step="Check the spelling of the place.")
    return [infos[name] for name in sorted(choose(list(infos)))]


def _key(uri: str, chosen: Sequence[ObjectInfo]) -> str:
    content = json.dumps([uri, [(info.key, info.size_bytes, info.version) for info in chosen]])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def verified(folder: Path, *, receipt: Path, here: Here) -> dict[str, str] | None:
    """The hashes of an earlier fetch; None where there was none, and where its files are no longer what they were."""
    if not (folder.is_dir() and receipt.is_file()):
        return None
    hashes: dict[str, str] = json.loads(receipt.read_text(encoding="utf-8"))
    for name, sha256 in hashes.items():
        here.check_stop()
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            here.log.warning("scratch-damaged", f"{folder / name} is not what was fetched: it is fetched again")
            return None
    return hashes


def _download(store: ObjectStore, chosen: Sequence[ObjectInfo], *, into: Path, here: Here) -> dict[str, str]:
    """Into a folder aside, which takes the final name when all is there: a killed process leaves nothing that looks whole."""
    size_bytes = sum(info.size_bytes for info in chosen)
    aside = into.with_name(f"{into.name}.new-{secrets.token_hex(4)}")
    for left in (into, *into.parent.glob(f"{into.name}.new-*")):  # the lock is ours: their process is dead
        shutil.rmtree(left, ignore_errors=True)
    require_room(size_bytes, folder=into.parent)
    what = f"fetching {len(chosen)} files ({size_bytes / 2**20:.0f} MiB) from {store.uri}"
    here.log.event("fetch", what, size_bytes=size_bytes)

    def on_progress(done: int, of: int) -> None:
        here.log.progress(f"fetching from {store.uri}: {done / 2**20:.0f} of {of / 2**20:.0f} MiB")

    try:
        got = download_tree(store, infos=chosen, into=aside, check_stop=here.check_stop, on_progress=on_progress)
        hashes = {name: file.sha256 for name, file in got.items()}
        receipt = into.with_name(f"{into.name}.json")
        receipt.write_text(json.dumps(hashes), encoding="utf-8")
        aside.rename(into)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return hashes


def require_room(size_bytes: int, *, folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes:
        raise StorageError(
            f"scratch has {free_bytes / 2**30:.1f} GiB left, and {size_bytes / 2**30:.1f} GiB are to be fetched.",
            where=str(folder),
            next_step="Make room, or set run.scratch (or SDJOB_SCRATCH) to a larger disk.",
        )


@contextmanager
def locked(path: Path, *, here: Here) -> Generator[None]:
    """Held against other processes; the kernel lets go of a dead one's."""
    while (descriptor := try_lock(path)) is None:
        here.check_stop()
        here.log.progress("another process is fetching the same files: waiting for it")
        here.clock.sleep(WAIT_S)
    try:
        yield
    finally:
        os.close(descriptor)

"""Mistakes that this protocol is easily built with, put into the real code: each must be found, or the simulator sees nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdjob.ckpt import engine
from sdjob.ckpt.blobs import Blobs
from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.ckpt.journal import Journal
from sdjob.ckpt.manifest import StoredFile
from sdjob.ckpt.slot import Slot, encode, slot_key


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def nonce_ignored() -> Any:
    """A 412 is taken for somebody else's slot, whoever wrote it: a reply that is lost becomes a second commit."""

    def create(self: Journal, slot: Slot) -> bool:
        return self._store.create(slot_key(slot.number), encode(slot))

    return _replaced(Journal, "_create", create)


def refusal_taken_for_success() -> Any:
    """A 412 is taken for one's own lost reply, without a look: a zombie believes that it has committed."""

    def create(self: Journal, slot: Slot) -> bool:
        self._store.create(slot_key(slot.number), encode(slot))
        return True

    return _replaced(Journal, "_create", create)


def prune_without_a_look() -> Any:
    """The epoch is not asked for again before each batch of deletions."""
    sweep: Callable[..., None] = engine.sweep

    def blind(keys: list[str], *, blobs: Blobs, still_owner: Callable[[], None]) -> None:
        sweep(keys, blobs=blobs, still_owner=lambda: None)

    return _replaced(engine, "sweep", blind)


def no_hash_check() -> Any:
    """What is downloaded is believed."""

    def download(self: Blobs, file: StoredFile, path: Path) -> None:
        self._store.read_hashed(file.blob, path)

    return _replaced(Blobs, "download", download)


def listing_believed() -> Any:
    """The log is read as far as a listing shows it."""

    def replay(self: Journal) -> History:
        self.history = History()
        for number in range(sum(key.startswith("log/") for key in self._store.keys("log/"))):
            slot = self._slot_at(number)
            if slot is None:
                break
            self._take(slot)
        return self.history

    return _replaced(Journal, "replay", replay)


def restore_chosen_before_the_claim() -> Any:
    """What to restore is chosen from the log as it was at the first look."""
    claim = CommitLog.claim

    def early(self: CommitLog, *, attempt: str, host: str) -> engine.Claim:
        seen = self._journal.history
        made = claim(self, attempt=attempt, host=host)
        self._journal.history = History((*seen.slots, *made.history.slots[len(seen.slots) :]))
        self._chosen = seen.live  # type: ignore[attr-defined]
        return made

    def restore(self: CommitLog, into: Path, *, copies: Path | None = None) -> engine.Restored | None:
        return self._download(self._chosen[0], into) if self._chosen else None  # type: ignore[attr-defined]

    @contextmanager
    def both() -> Iterator[None]:
        with _replaced(CommitLog, "claim", early), _replaced(CommitLog, "restore", restore):
            yield

    return both()


PLANTED = {
    function.__name__.replace("_", " "): function
    for function in (
        nonce_ignored,
        refusal_taken_for_success,
        prune_without_a_look,
        no_hash_check,
        listing_believed,
        restore_chosen_before_the_claim,
    )
}

"""What may go, and how it goes: retire first, then delete in small batches, asking before each whether the run is still ours."""

from collections.abc import Callable, Mapping, Sequence

from sdjob.ckpt.blobs import Blobs, blob_epoch, blob_key
from sdjob.ckpt.history import History, LoggedCommit
from sdjob.ckpt.manifest import Manifest
from sdjob.ckpt.policy import steps_to_retire

BATCH = 50  # blobs between two looks at the log


def retire_slots(history: History, *, keep: int, keep_every: int | None) -> list[LoggedCommit]:
    """The commits to retire, oldest first: what policy lets go of the live ones, and all that was superseded."""
    final_step = history.done.step if history.done else None
    steps = set(
        steps_to_retire([commit.step for commit in history.live], keep=keep, keep_every=keep_every, final_step=final_step)
    )
    return [
        commit for commit in history.commits if commit.state == "superseded" or (commit.state == "live" and commit.step in steps)
    ]


def orphans(keys: Sequence[str], *, manifests: Mapping[LoggedCommit, Manifest], epoch: int) -> list[str]:
    """The blobs that no live commit names, of epochs up to the holder's own: a newer holder's uploads are not ours to judge."""
    named = {blob_key(commit.manifest, epoch=commit.epoch) for commit in manifests}
    named.update(file.blob for manifest in manifests.values() for file in manifest.files.values())
    return [key for key in keys if key not in named and (blob_epoch(key) or 0) in range(1, epoch + 1)]


def sweep(keys: Sequence[str], *, blobs: Blobs, still_owner: Callable[[], None]) -> None:
    for start in range(0, len(keys), BATCH):
        still_owner()
        blobs.delete(keys[start : start + BATCH])

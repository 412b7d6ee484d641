"""A folder of results to a place, so that doing it again, or after being cut off anywhere, ends in the same place.

What a target holds decides what happens to it:

    nothing, or dot files alone (a Hub repository is born with .gitattributes)   published
    our files without sdjob.json: a publish that was cut off                     completed
    sdjob.json of this digest, every file there in its size                      skipped
    sdjob.json of this digest, files missing                                     completed
    sdjob.json of this very run at an earlier step                               updated
    sdjob.json of another run, or one that cannot be read                        refused; with `replace: true` replaced
    files of somebody else                                                       refused; with `replace: true` published beside

Only files that the target's own sdjob.json names are ever removed, and only after the new ones are there.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.job.card import CARD_MARK, CARD_NAME
from sdjob.job.record import RECORD_NAME, Publication, PublishedFile, Record, read_record, record_bytes
from sdjob.store.base import ObjectStore
from sdjob.store.patient import PatientStore

Action = Literal["published", "completed", "skipped", "updated", "replaced"]


@dataclass(frozen=True)
class PublishOutcome:
    uri: str
    action: Action
    uploaded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What a place holds before anything is written to it."""

    names: frozenset[str]
    """All of its files, sdjob.json left out."""

    record: Record | None
    whole: bool
    """Every file that the record names is there in its size."""

    card_is_ours: bool


def look_at(store: PatientStore) -> Target:
    names = frozenset(store.keys(""))
    record = read_record(store) if RECORD_NAME in names else None
    return Target(
        names=names - {RECORD_NAME},
        record=record,
        whole=record is not None
        and all(name in names and has(store, name, size_bytes=size) for name, size in record.sizes.items()),
        card_is_ours=CARD_NAME in names and CARD_MARK.encode() in store.read(CARD_NAME),
    )


def has(store: PatientStore, key: str, *, size_bytes: int) -> bool:
    info = store.stat(key)
    return info is not None and info.size_bytes == size_bytes


def publish(
    store: ObjectStore,
    *,
    folder: Path,
    publication: Publication,
    replace: bool,
    log: Log,
    backoff: Backoff | None = None,
) -> PublishOutcome:
    """Publishes every file of `folder` under its relative name; UsageError (64) where the target is somebody else's."""
    patient = PatientStore(store, backoff=backoff or Backoff())
    files = folder_files(folder)
    target = look_at(patient)
    action = decide(target, names=frozenset(files), publication=publication, replace=replace, uri=store.uri)
    if action == "skipped":
        log.event("publish-skipped", f"{store.uri} already holds this result", to=store.uri, digest=publication.digest)
        return PublishOutcome(store.uri, action)
    stale = stale_files(target, names=frozenset(files))
    for number, name in enumerate(files, start=1):
        log.progress(f"publishing to {store.uri}: {number} of {len(files)}, {name}")
        patient.write_file(name, folder / name)
    if stale:
        patient.delete(stale)
    # Last: where the record stands, everything that it names stands too.
    patient.write(RECORD_NAME, record_bytes(publication, files=files))
    log.event("published", f"{action} at {store.uri}: {len(files)} files", to=store.uri, action=action, removed=list(stale))
    return PublishOutcome(store.uri, action, uploaded=(*files, RECORD_NAME), removed=stale)


def folder_files(folder: Path) -> dict[str, PublishedFile]:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: published_file(paths[name]) for name in sorted(paths) if name != RECORD_NAME}


def published_file(path: Path) -> PublishedFile:
    with path.open("rb") as stream:
        return PublishedFile(size_bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def decide(target: Target, *, names: frozenset[str], publication: Publication, replace: bool, uri: str) -> Action:
    record = target.record
    if record is None:
        return without_record(target, names=names, replace=replace, uri=uri)
    if record.digest == publication.digest:
        return "skipped" if target.whole else "completed"
    same_run = record.identity == publication.identity
    if same_run and record.step <= publication.step:
        return "updated"
    if replace:
        return "replaced"
    what = f"this run's later step {record.step}" if same_run else "the result of another run"
    raise refusal(f"it holds {what} ({RECORD_NAME}: digest {record.digest[:12] or 'unreadable'}).", uri=uri)


def without_record(target: Target, *, names: frozenset[str], replace: bool, uri: str) -> Action:
    there = sorted(name for name in target.names if not name.startswith("."))
    foreign = [name for name in there if name not in names or (name == CARD_NAME and not target.card_is_ours)]
    if foreign and not replace:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise refusal(f"it holds files that no run of sdjob published: {foreign[0]}{more}.", uri=uri)
    return "completed" if len(there) > len(foreign) else "published"


def refusal(what: str, *, uri: str) -> UsageError:
    return UsageError(
        what, where=f"publish: {uri}", next_step="Set replace: true for this place to write over it, or publish to another place."
    )


def stale_files(target: Target, *, names: frozenset[str]) -> tuple[str, ...]:
    """What the target's own record names and the new result has no more."""
    if target.record is None:
        return ()
    return tuple(sorted(name for name in target.record.sizes if name not in names and name in target.names))

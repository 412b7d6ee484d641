"""A folder of results to a place, so that doing it again, or after being cut off anywhere, ends in the same place.

What a target holds decides what happens to it:

    nothing, or dot files alone (a Hub repository is born with .gitattributes)   published
    our files without sdjob.json: a publish that was cut off                     completed
    sdjob.json of this digest, every file there in its size                      skipped
    sdjob.json of this digest, files missing                                     completed
    sdjob.json of this very run at an earlier step                               updated
    sdjob.json of another run, or one that cannot be read                        refused; with `replace: true` replaced
    files of somebody else                                                       refused; with `replace: true` published beside

Only files that the target's own sdjob.json names are ever removed, and only after the new ones are there. A repository on the
Hub gets all of it as one commit, on top of the commit that was looked at: whoever commits meanwhile is never written over.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff, with_retries
from sdjob.job.card import CARD_MARK, CARD_NAME
from sdjob.job.record import RECORD_NAME, Publication, PublishedFile, Record, read_record, record_bytes
from sdjob.store.base import ObjectStore, OneCommit, TransientStoreError
from sdjob.store.patient import PatientStore
from sdjob.store.transfer import upload_tree

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


@dataclass(frozen=True)
class Parcel:
    """What is to be published, and how."""

    folder: Path
    files: dict[str, PublishedFile]
    """Every file of the folder, by its relative name."""

    publication: Publication
    replace: bool
    """Over what another run has published."""

    private: bool
    """A repository that has to be made."""

    check_stop: Callable[[], None]
    log: Log
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def record(self) -> bytes:
        return record_bytes(self.publication, files=self.files)


def look_at(store: PatientStore) -> Target:
    sizes = {info.key: info.size_bytes for info in store.list("")}
    record = read_record(store) if RECORD_NAME in sizes else None
    return Target(
        names=frozenset(sizes) - {RECORD_NAME},
        record=record,
        whole=record is not None and record.sizes.items() <= sizes.items(),
        card_is_ours=CARD_NAME in sizes and CARD_MARK.encode() in store.read(CARD_NAME),
    )


def publish(
    store: ObjectStore,
    *,
    folder: Path,
    publication: Publication,
    replace: bool,
    private: bool,
    check_stop: Callable[[], None],
    log: Log,
    backoff: Backoff | None = None,
) -> PublishOutcome:
    """Publishes every file of `folder` under its relative name; UsageError (64) where the target is somebody else's, or public
    where `private` is asked for. A stop request is obeyed between two files."""
    parcel = Parcel(folder, folder_files(folder), publication, replace, private, check_stop, log, backoff or Backoff())
    if isinstance(store, OneCommit):
        outcome = with_retries(
            lambda: publish_as_commit(store, parcel=parcel), transient=(TransientStoreError,), backoff=parcel.backoff
        )
    else:
        outcome = publish_as_files(store, parcel=parcel)
    tell(outcome, parcel=parcel)
    return outcome


def publish_as_files(store: ObjectStore, *, parcel: Parcel) -> PublishOutcome:
    """Several files at a time, the record last: where it stands, everything that it names stands too."""
    patient = PatientStore(store, backoff=parcel.backoff)
    target = look_at(patient)
    action = decide(target, parcel=parcel, uri=store.uri)
    if action == "skipped":
        return PublishOutcome(store.uri, action)
    stale = stale_files(target, names=frozenset(parcel.files))
    upload_tree(
        store,
        files={name: parcel.folder / name for name in parcel.files},
        check_stop=parcel.check_stop,
        on_progress=lambda done, of: parcel.log.progress(
            f"publishing to {store.uri}: {done / 2**20:.0f} of {of / 2**20:.0f} MiB"
        ),
        backoff=parcel.backoff,
    )
    if stale:
        patient.delete(stale)
    patient.write(RECORD_NAME, parcel.record)
    return PublishOutcome(store.uri, action, uploaded=(*parcel.files, RECORD_NAME), removed=stale)


class Repository(ObjectStore, OneCommit, Protocol):
    """A store of the Hub's kind."""


def publish_as_commit(store: Repository, *, parcel: Parcel) -> PublishOutcome:
    """Safe to repeat: a commit that had landed though its reply was lost is found by the next look."""
    head = store.head() or made(store, private=parcel.private)
    target = look_at(PatientStore(store, backoff=parcel.backoff))
    action = decide(target, parcel=parcel, uri=store.uri)
    if action == "skipped":
        return PublishOutcome(store.uri, action)
    store.ensure_repository(private=parcel.private)  # refuses a public one where something would be added to it
    stale = stale_files(target, names=frozenset(parcel.files))
    store.commit_tree(
        files={**{name: parcel.folder / name for name in parcel.files}, RECORD_NAME: parcel.record},
        delete=stale,
        message=f"Step {parcel.publication.step}, {CARD_MARK}",
        expected=head,
        before_upload=lambda names: about_to_send(names, parcel=parcel, uri=store.uri),
    )
    return PublishOutcome(store.uri, action, uploaded=(*parcel.files, RECORD_NAME), removed=stale)


def made(store: Repository, *, private: bool) -> str:
    """The head of a repository that was not there: nothing of ours, and perhaps somebody else's who was quicker."""
    store.ensure_repository(private=private)
    head = store.head()
    if head is None:
        raise TransientStoreError("the repository was made and is not to be seen yet.", where=store.uri)
    return head


def about_to_send(names: Sequence[str], *, parcel: Parcel, uri: str) -> None:
    parcel.check_stop()
    order = [*parcel.files, RECORD_NAME]
    parcel.log.progress(f"publishing to {uri}: {order.index(names[0]) + 1} of {len(order)}, {names[0]}")


def tell(outcome: PublishOutcome, *, parcel: Parcel) -> None:
    to, log = outcome.uri, parcel.log
    if outcome.action == "skipped":
        log.event("publish-skipped", f"{to} already holds this result", to=to, digest=parcel.publication.digest)
        return
    what = f"{outcome.action} at {to}: {len(parcel.files)} files"
    log.event("published", what, to=to, action=outcome.action, removed=list(outcome.removed))


def folder_files(folder: Path) -> dict[str, PublishedFile]:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: published_file(paths[name]) for name in sorted(paths) if name != RECORD_NAME}


def published_file(path: Path) -> PublishedFile:
    with path.open("rb") as stream:
        return PublishedFile(size_bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def decide(target: Target, *, parcel: Parcel, uri: str) -> Action:
    record, publication = target.record, parcel.publication
    if record is None:
        return without_record(target, names=frozenset(parcel.files), replace=parcel.replace, uri=uri)
    if record.digest == publication.digest:
        return "skipped" if target.whole else "completed"
    same_run = record.identity == publication.identity
    if same_run and record.step <= publication.step:
        return "updated"
    if parcel.replace:
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

"""One commit on the Hub: many files and deletions, all of it or nothing, never over somebody else's."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile

from sdjob.core.errors import StorageError
from sdjob.spec.places import Place
from sdjob.store.base import ObjectChangedError, TransientStoreError
from sdjob.store.hub_client import has_token, hub_api, quiet
from sdjob.store.hub_errors import hub_errors, no_token
from sdjob.store.hub_look import kind_of, look

COMMIT = re.compile(r"[0-9a-f]{40}")
PORTION_BYTES = 64 * 1024 * 1024  # what is uploaded between two looks at a stop request, or one larger file
PATHS_A_REQUEST = 500  # more are too many for one paths-info (huggingface_hub/_commit_api.py, FETCH_LFS_BATCH_SIZE)
THREADS = 4


@dataclass(frozen=True)
class Change:
    files: Mapping[str, Path | bytes]
    delete: Sequence[str]
    message: str
    branch: str
    expected: str | None
    """The head that it was decided on; None: whatever the head is."""


def is_commit(revision: str) -> bool:
    return COMMIT.fullmatch(revision) is not None


def commit(change: Change, *, place: Place, before_upload: Callable[[Sequence[str]], None] | None) -> str:
    """The new commit, or the head where it already has all of this."""
    if not has_token():
        raise no_token(place)
    with hub_errors(place, writing=True):
        additions = [CommitOperationAdd(key, content) for key, content in change.files.items()]
    try:
        made = upload_and_commit(change, additions, place=place, before_upload=before_upload)
    except (TransientStoreError, ObjectChangedError):
        made = look(place, revision=change.branch).commit  # the commit may have landed and only its reply been lost
        if lacking(change, additions, place=place, at=made):
            raise
        return made
    if missing := lacking(change, additions, place=place, at=made):
        raise StorageError(
            f"the Hub took the commit without {', '.join(missing)}.",
            where=place.uri,
            next_step="Look into the repository's .gitignore.",
        )
    return made


def upload_and_commit(
    change: Change,
    additions: Sequence[CommitOperationAdd],
    *,
    place: Place,
    before_upload: Callable[[Sequence[str]], None] | None,
) -> str:
    """Large files first: what was uploaded stays there for a later try, though no commit names it yet."""
    api, kind = hub_api(), kind_of(place)
    with hub_errors(place, writing=True), quiet():
        for portion in portions(additions):
            if before_upload is not None:
                before_upload([addition.path_in_repo for addition in portion])
            api.preupload_lfs_files(
                place.name, additions=portion, repo_type=kind, revision=change.branch, num_threads=THREADS, free_memory=False
            )
        done = api.create_commit(
            place.name,
            operations=[*additions, *(CommitOperationDelete(key, is_folder=False) for key in change.delete)],
            commit_message=change.message,
            repo_type=kind,
            revision=change.branch,
            parent_commit=change.expected,
        )
    return done.oid


def portions(additions: Sequence[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    portion, size_bytes = list[CommitOperationAdd](), 0
    for addition in additions:
        if portion and size_bytes + addition.upload_info.size > PORTION_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(addition)
        size_bytes += addition.upload_info.size
    if portion:
        yield portion


def lacking(change: Change, additions: Sequence[CommitOperationAdd], *, place: Place, at: str) -> list[str]:
    """Names of which a commit does not have what the change wants."""
    there = files_at(place, [*change.files, *change.delete], commit=at)
    wrong = [op.path_in_repo for op in additions if not is_same(op, there.get(op.path_in_repo))]
    return [*wrong, *(key for key in change.delete if key in there)]


def files_at(place: Place, keys: Sequence[str], *, commit: str) -> dict[str, RepoFile]:
    api, found = hub_api(), dict[str, RepoFile]()
    for start in range(0, len(keys), PATHS_A_REQUEST):
        some = list(keys[start : start + PATHS_A_REQUEST])
        with hub_errors(place):
            entries = api.get_paths_info(place.name, some, revision=commit, repo_type=kind_of(place))
        found |= {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    return found


def is_same(addition: CommitOperationAdd, file: RepoFile | None) -> bool:
    if file is None or file.size != addition.upload_info.size:
        return False
    if file.lfs:
        return file.lfs.sha256 == addition.upload_info.sha256.hex()
    with addition.as_file() as content:
        return file.blob_id == hashlib.sha1(b"blob %d\0" % file.size + content.read(), usedforsecurity=False).hexdigest()

"""A repository on the Hugging Face Hub as an object store, on the Hub's own client.

Reads are pinned to one commit, so that what is listed and what is read belong together. Every byte is verified against that
commit: an LFS file against its sha256, a small one against its git blob id.

Files are streamed to where the caller wants them, and nothing is written to the client's cache: a pod's is empty and would
hold everything twice on a small disk. What a workstation's cache has already is taken from there, verified like a download.
Writes are commits: see hub_commit.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import httpx2
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import get_session, hf_raise_for_status

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.places import Place
from sdjob.store.base import (
    ObjectDeniedError,
    ObjectInfo,
    ObjectMissingError,
    TransientStoreError,
    checked_key,
    checked_prefix,
    listed_key,
    scratch_errors,
)
from sdjob.store.hub_client import endpoint, has_token, hub_api, request_headers, token_source
from sdjob.store.hub_commit import Change, commit, is_commit
from sdjob.store.hub_errors import hub_errors, no_token
from sdjob.store.hub_look import kind_of, look, resolve_commit, tree

__all__ = ["HubStore", "resolve_commit"]

CHUNK_BYTES = 1024 * 1024


class HubStore:
    """The repository at the place's revision, `main` where it names none."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._revision = place.revision or "main"
        self._lock = threading.RLock()
        self._commit: str | None = self._revision if is_commit(self._revision) else None
        self._files: dict[str, RepoFile] | None = None

    @classmethod
    def of(cls, place: Place) -> "HubStore":
        return cls(place)

    @property
    def uri(self) -> str:
        return self._place.uri

    # ---- reads -------------------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        return b"".join(self._verified(key, file=self._file(key)))

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        chunks = self._verified(key, file=self._file(key))
        with scratch_errors(path):
            target = path.open("wb")
        with target:
            for chunk in chunks:
                write_chunk(target, chunk, path=path)
                if on_chunk is not None:
                    on_chunk(chunk)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Of the pinned commit; the names are asked for once."""
        checked_prefix(prefix)
        keys = ((listed_key(path, size_bytes=file.size, where=self.uri), file) for path, file in self._tree().items())
        return iter([as_info(key, file) for key, file in keys if key is not None and key.startswith(prefix)])

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            return as_info(key, self._file(key))
        except ObjectMissingError:
            return None

    def credentials(self) -> str:
        if not has_token():
            raise ObjectDeniedError(
                "no token: public repositories can be read all the same, gated and private ones cannot, and nothing be written.",
                where=self.uri,
                next_step="Set HF_TOKEN, or run `hf auth login`.",
            )
        with hub_errors(self._place):
            client: Any = hub_api()
            who: dict[str, Any] = client.whoami()
        token: dict[str, Any] = who.get("auth", {}).get("accessToken") or {}
        return f"{who['name']}, by the {token.get('role', '')} token from {token_source()}".replace("the  ", "the ")

    def expiry_rules(self) -> "list[str]":
        return []

    # ---- writes ------------------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        self.commit_tree(files={checked_key(key): data}, delete=(), message=f"Write {key}", expected=None)

    def write_file(self, key: str, path: Path) -> None:
        self.commit_tree(files={checked_key(key): path}, delete=(), message=f"Write {key}", expected=None)

    def create(self, key: str, data: bytes) -> bool:  # noqa: ARG002
        checked_key(key)
        raise UsageError(
            "a repository on the Hub has no create-only writes.",
            where=self.uri,
            next_step="Keep checkpoints in a folder or a bucket, and publish here.",
        )

    def delete(self, keys: Iterable[str]) -> None:
        wanted = {checked_key(key) for key in keys}
        there = sorted(wanted & self._tree().keys()) if wanted and self.head() else []
        if there:
            self.commit_tree(files={}, delete=there, message=f"Delete {len(there)} files", expected=self._commit)

    def head(self) -> str | None:
        """The commit that the branch is at now; reads see it from here on. None where the repository does not exist yet.

        For who is about to write: where there is no token the Hub would not say whether the repository exists.
        """
        if not has_token():
            raise no_token(self._place)
        try:
            self._pin(look(self._place, revision=self._revision).commit)
        except MissingError as error:
            if isinstance(error.__cause__, RevisionNotFoundError):
                raise  # a repository without this branch is there, and not ours to begin
            return None
        return self._commit

    def ensure_repository(self, *, private: bool) -> None:
        """Makes the repository where there is none. One that is there keeps its visibility; UsageError (64) where it is public
        and should be private, so that nothing leaks."""
        if self.head() is None:
            with hub_errors(self._place, writing=True):
                create_repository(self._place, private=private)
        if private and not look(self._place, revision=self._revision).private:
            raise UsageError(
                "this repository is public, and `private` is true.",
                where=f"publish: {self.uri}",
                next_step="Set private: false to publish for everybody to see, make the repository private, or take another one.",
            )

    def commit_tree(
        self,
        *,
        files: Mapping[str, Path | bytes],
        delete: Sequence[str],
        message: str,
        expected: str | None,
        before_upload: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        """Large files are uploaded first and one commit then names them all: what was cut off goes on with what is missing.
        `before_upload` hears the names of each portion, and may raise. `expected` None: whatever the head is."""
        change = Change(files=files, delete=delete, message=message, branch=self._revision, expected=expected)
        self._pin(commit(change, place=self._place, before_upload=before_upload))

    # ---- how ---------------------------------------------------------------------------------------------------------------

    def _pin(self, commit: str) -> None:
        with self._lock:
            if commit != self._commit:
                self._commit, self._files = commit, None

    def _pinned(self) -> str:
        with self._lock:  # two threads that looked for themselves might see two commits
            if self._commit is None:
                self._commit = look(self._place, revision=self._revision).commit
            return self._commit

    def _tree(self) -> dict[str, RepoFile]:
        with self._lock:
            if self._files is None:
                self._files = tree(self._place, commit=self._pinned())
            return self._files

    def _file(self, key: str) -> RepoFile:
        file = self._tree().get(checked_key(key))
        if file is None:
            raise ObjectMissingError("there is no such object.", where=f"{self.uri}/{key}")
        return file

    def _verified(self, key: str, *, file: RepoFile) -> Iterator[bytes]:
        """The file's bytes; TransientStoreError at the end where they were not what the commit says."""
        cached = self._cached(key, file=file)
        hasher = hasher_of(file)
        for chunk in chunks_of(cached) if cached else self._streamed(key, size_bytes=file.size):
            hasher.update(chunk)
            yield chunk
        if hasher.hexdigest() != digest_of(file):
            raise TransientStoreError(
                "what was read is not what the commit names (its hash differs).",
                where=f"{self.uri}/{key}",
                next_step="If it happens again, something on the way to the Hub, such as a proxy, changes files.",
            )

    def _cached(self, key: str, *, file: RepoFile) -> Path | None:
        """The file in the client's own cache, where it is whole."""
        found = try_to_load_from_cache(self._place.name, key, revision=self._pinned(), repo_type=kind_of(self._place))
        if not isinstance(found, str):
            return None
        hasher = hasher_of(file)
        for chunk in chunks_of(Path(found)):
            hasher.update(chunk)
        return Path(found) if hasher.hexdigest() == digest_of(file) else None

    def _streamed(self, key: str, *, size_bytes: int) -> Iterator[bytes]:
        """Goes on where the line was cut, as long as each try brings something."""
        done = 0
        while True:
            before = done
            with hub_errors(self._place, key=key):
                try:
                    for chunk in self._body(key, start=done):
                        done += len(chunk)
                        yield chunk
                except httpx2.TransportError:
                    if done == before:
                        raise
            if done >= size_bytes:
                return
            if done == before:
                raise TransientStoreError("the Hub sent less than the file.", where=f"{self.uri}/{key}")

    def _body(self, key: str, *, start: int) -> Iterator[bytes]:
        """A token is sent to the Hub alone: the client drops it where it is led to another host."""
        hub_api()  # sets up the session
        url = hf_hub_url(self._place.name, key, repo_type=kind_of(self._place), revision=self._pinned(), endpoint=endpoint())
        headers = {**request_headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with get_session().stream("GET", url, headers=headers) as response:
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                raise httpx2.RemoteProtocolError("a range was asked for and not given")
            yield from response.iter_bytes()  # as they arrive: a chunk size would lose what a cut line had brought


def create_repository(place: Place, *, private: bool) -> None:
    try:
        hub_api().create_repo(place.name, repo_type=kind_of(place), private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:  # somebody was quicker, or our own reply had been lost
            raise


def as_info(key: str, file: RepoFile) -> ObjectInfo:
    return ObjectInfo(key, file.size, version=file.blob_id)


class Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def hasher_of(file: RepoFile) -> Hasher:
    """https://git-scm.com/book/en/v2/Git-Internals-Git-Objects for what is no LFS file."""
    return hashlib.sha256() if file.lfs else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def digest_of(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


def chunks_of(path: Path) -> Iterator[bytes]:
    with scratch_errors(path), path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def write_chunk(target: BinaryIO, chunk: bytes, *, path: Path) -> None:
    with scratch_errors(path):
        target.write(chunk)

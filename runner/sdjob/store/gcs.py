"""A prefix of a Google Cloud Storage bucket. Endpoint and credentials are the SDK's own: GOOGLE_APPLICATION_CREDENTIALS,
gcloud's login or the machine's service account; with STORAGE_EMULATOR_HOST, nobody's.

Uploads carry the object's CRC32C, which the server verifies before the object is there
(https://cloud.google.com/storage/docs/data-validation); what it then says it has is compared once more.
"""
# The SDK carries few types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import base64
import os
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sdjob.spec.places import Place
from sdjob.store.base import ObjectInfo, ObjectMissingError, TransientStoreError, scratch_errors
from sdjob.store.expiry import gcs_expiry
from sdjob.store.prefix import Prefix
from sdjob.store.ranged import Checksum, Opened, RangedReader, Span
from sdjob.store.sentences import NO_BUCKET

with warnings.catch_warnings():  # grpc may be here for another package's sake; we do not use it
    warnings.filterwarnings("ignore", message="Please install grpcio-status", category=ImportWarning)
    import google.auth
    import google_crc32c
    from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY
    from requests.adapters import HTTPAdapter

from sdjob.store.gcs_errors import gcs_errors, of_status, told_by

EMULATOR = "STORAGE_EMULATOR_HOST"
# Else the SDK asks for the bucket's metadata in a thread of its own, for traces that nobody collects; it is refused, again and
# again, to an identity for objects alone.
NO_METADATA_FOR_TRACES = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"  # https://cloud.google.com/storage/docs/oauth-scopes
# https://cloud.google.com/storage/docs/resumable-uploads: at least 8 MiB, a multiple of 256 KiB
PART_BYTES = 8 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
PAGE_KEYS = 1000
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # without a single byte
AT_ONCE_BYTES = 8 * 1024 * 1024  # up to here the SDK sends a file in one request, without a session
PART_PATIENCE_S = 60.0  # for one part of an upload session; who waits longer is PatientStore
CONNECTIONS = 64


@dataclass(frozen=True)
class _Connection:
    client: Any
    downloads: Any
    """Our own requests to the SDK's endpoint, with its credentials: its downloads cannot be held to a range and a version."""


class GcsStore:
    """`part_bytes`, `page_keys` and `read_timeout_s` are parameters so that tests can be small."""

    def __init__(
        self,
        place: Place,
        *,
        part_bytes: int = PART_BYTES,
        page_keys: int = PAGE_KEYS,
        read_timeout_s: float = READ_TIMEOUT_S,
        reader: RangedReader | None = None,
    ) -> None:
        self._name = place.name
        self._prefix = Prefix(place)
        self._part_bytes = part_bytes
        self._page_keys = page_keys
        self._timeout = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._reader = reader or RangedReader()
        self._lock = threading.Lock()
        self._made: _Connection | None = None
        self._bucket_seen = False

    @classmethod
    def of(cls, place: Place) -> "GcsStore":
        return cls(place)

    @property
    def uri(self) -> str:
        return self._prefix.place.uri

    def read(self, key: str) -> bytes:
        return self._reader.read(_GcsObject(self, key=key, name=self._prefix.name_of(key)))

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        self._reader.read_to(_GcsObject(self, key=key, name=self._prefix.name_of(key)), path, on_chunk=on_chunk)

    def write(self, key: str, data: bytes) -> None:
        with self._writing(key):
            self._put(key, data)

    def write_file(self, key: str, path: Path) -> None:
        """A large file goes in one upload session, which goes on where a part failed; one that never ends is never an object."""
        with scratch_errors(path), self._writing(key), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            crc32c = _crc32c_of_file(path)
            blob = self._blob(key)
            blob.upload_from_file(
                file,
                size=size,
                checksum="crc32c",
                crc32c_checksum_value=crc32c,
                timeout=self._timeout,
                retry=DEFAULT_RETRY.with_timeout(PART_PATIENCE_S) if size > AT_ONCE_BYTES else None,
            )
            self._refuse_other(blob, crc32c, key=key)

    def create(self, key: str, data: bytes) -> bool:
        with self._writing(key):
            try:
                self._put(key, data, if_generation_match=0)
            except PreconditionFailed:
                return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._prefix.keys_of(self._listed(self._prefix.listing_of(prefix)))

    def stat(self, key: str) -> ObjectInfo | None:
        name = self._prefix.name_of(key)
        with self.errors(key):
            blob = self._bucket().get_blob(name, timeout=self._timeout, retry=None)
        if blob is None:
            self._refuse_missing_bucket()
            return None
        return ObjectInfo(key, int(blob.size), version=str(blob.generation))

    def delete(self, keys: Iterable[str]) -> None:
        names = {key: self._prefix.name_of(key) for key in keys}
        for key, name in names.items():
            try:
                with self.errors(key):
                    self._bucket().delete_blob(name, timeout=self._timeout, retry=None)
            except ObjectMissingError:
                continue

    def credentials(self) -> str:
        if os.environ.get(EMULATOR):
            return f"nobody's: {EMULATOR} is set"
        with gcs_errors(self.uri):
            found, _ = google.auth.default(scopes=[SCOPE])
        who = getattr(found, "service_account_email", None) or "a user's login"
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            return f"{who}, from the file that GOOGLE_APPLICATION_CREDENTIALS names"
        metadata = type(found).__module__.startswith("google.auth.compute_engine")
        return f"{who}, from {'the machine' if metadata else 'gcloud auth application-default login'}"

    def expiry_rules(self) -> "list[str]":
        with gcs_errors(self.uri):
            try:
                bucket = self._connection().client.get_bucket(self._name, timeout=self._timeout, retry=None)
            except NotFound as error:
                raise NO_BUCKET.error(where=self.uri) from error
            return gcs_expiry(bucket.lifecycle_rules, prefix=self._prefix.text)

    # ---- calls ----

    def get(self, name: str, *, headers: dict[str, str], version: str | None) -> Any:
        """A download's reply, its body unread. Accept-Encoding: else a compressed object would be unpacked on the way, and
        neither its size nor its checksum would fit (https://cloud.google.com/storage/docs/transcoding)."""
        connection = self._connection()
        return connection.downloads.get(
            f"{connection.client.api_endpoint}/download/storage/v1/b/{quote(self._name)}/o/{quote(name, safe='')}",
            params={"alt": "media"} | ({"ifGenerationMatch": version} if version else {}),
            headers={"Accept-Encoding": "gzip", **headers},
            timeout=self._timeout,
            stream=True,
        )

    def _put(self, key: str, data: bytes, **conditions: int) -> None:
        blob = self._blob(key)
        blob.upload_from_string(
            data, content_type="application/octet-stream", checksum="crc32c", timeout=self._timeout, retry=None, **conditions
        )
        self._refuse_other(blob, _base64_crc32c(google_crc32c.value(data)), key=key)

    def _refuse_other(self, blob: Any, crc32c: str, *, key: str) -> None:
        if blob.crc32c != crc32c:
            raise TransientStoreError("the store says that it holds other bytes than were sent.", where=self._prefix.where(key))

    def _listed(self, name: str) -> Iterator[ObjectInfo]:
        with self._writing(""):
            found = self._connection().client.list_blobs(
                self._name,
                prefix=name or None,
                page_size=self._page_keys,
                fields="items(name,size,generation),nextPageToken",
                timeout=self._timeout,
                retry=None,
            )
            for blob in found:
                yield ObjectInfo(blob.name, int(blob.size), version=str(blob.generation))

    @contextmanager
    def errors(self, key: str) -> Generator[None, None, None]:
        """ "No such object" is said only of a bucket that is there: the reply is the same 404 for both. Asked once."""
        try:
            with gcs_errors(self._prefix.where(key)):
                yield
        except ObjectMissingError:
            self._refuse_missing_bucket()
            raise

    @contextmanager
    def _writing(self, key: str) -> Generator[None, None, None]:
        """Of what is written or listed, only the bucket can be missing, or the session of an upload in parts: then it starts
        again (https://cloud.google.com/storage/docs/resumable-uploads, on 404 and 410)."""
        try:
            with gcs_errors(self._prefix.where(key)):
                yield
        except ObjectMissingError as error:
            self._bucket_seen = False
            self._refuse_missing_bucket()
            where = self._prefix.where(key)
            raise TransientStoreError("the upload session is gone; the upload starts again.", where=where) from error

    def _refuse_missing_bucket(self) -> None:
        """By a listing: an identity for objects alone may not look at the bucket itself."""
        if self._bucket_seen:
            return
        with gcs_errors(self.uri):
            try:
                one = self._connection().client.list_blobs(self._name, page_size=1, timeout=self._timeout, retry=None)
                next(one.pages, None)
            except NotFound as error:
                raise NO_BUCKET.error(where=self.uri) from error
            except Forbidden:
                pass  # then the first answer has to do
        self._bucket_seen = True

    # ---- the SDK ----

    def _bucket(self) -> Any:
        return self._connection().client.bucket(self._name)

    def _blob(self, key: str) -> Any:
        return self._bucket().blob(self._prefix.name_of(key), chunk_size=self._part_bytes)

    def _connection(self) -> _Connection:
        """Made by the first call, for all threads."""
        with self._lock, gcs_errors(self.uri):
            if self._made is None:
                self._made = _connect()
            return self._made


def _connect() -> _Connection:
    os.environ.setdefault(NO_METADATA_FOR_TRACES, "true")
    if os.environ.get(EMULATOR):
        credentials, project = AnonymousCredentials(), None
    else:
        credentials, project = google.auth.default(scopes=[SCOPE])
    downloads = AuthorizedSession(credentials)
    for scheme in ("http://", "https://"):
        downloads.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    # The project is asked for by the SDK and by nothing that we call.
    return _Connection(storage.Client(project=project or "none", credentials=credentials), downloads)


@dataclass(frozen=True)
class _GcsObject:
    """The source of a ranged read."""

    store: GcsStore
    key: str
    name: str

    @property
    def where(self) -> str:
        return f"{self.store.uri}/{self.key}"

    def errors(self) -> AbstractContextManager[object]:
        return self.store.errors(self.key)

    def open(self, span: Span | None, *, version: str | None) -> Opened:
        with self.errors():
            reply = self.store.get(self.name, headers={"Range": span.http_range} if span else {}, version=version)
            if reply.status_code != (206 if span else 200):
                with reply:
                    raise of_status(reply.status_code, where=self.where, told=told_by(reply))
        size = reply.headers["Content-Range"].rpartition("/")[2] if span else reply.headers["Content-Length"]
        checksum = None if span else checksum_of(reply.headers.get("X-Goog-Hash", ""))
        return Opened(int(size), reply.headers.get("X-Goog-Generation", ""), reply.raw, checksum=checksum)


def checksum_of(header: str) -> Checksum | None:
    """`crc32c=n03x6A==,md5=...`: https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash"""
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "crc32c":
            return Checksum("CRC32C", _extend, expected=int.from_bytes(base64.b64decode(value), "big"))
    return None


def _extend(data: bytes, so_far: int) -> int:
    return google_crc32c.extend(so_far, data)


def _crc32c_of_file(path: Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            crc = google_crc32c.extend(crc, piece)
    return _base64_crc32c(crc)


def _base64_crc32c(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()

"""A prefix of an S3 bucket. Endpoint, region and credentials are the SDK's own: AWS_ENDPOINT_URL_S3, AWS_PROFILE and the rest.

Uploads carry the CRC64NVME of the whole object, which the server verifies before the object is there
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).
"""
# The SDK carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import base64
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from awscrt import checksums
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import ClientError

from sdjob import __version__
from sdjob.core.errors import MissingError
from sdjob.core.retry import with_retries
from sdjob.spec.places import Place
from sdjob.store.base import ObjectInfo, ObjectMissingError, TransientStoreError, scratch_errors
from sdjob.store.expiry import s3_expiry
from sdjob.store.prefix import Prefix
from sdjob.store.ranged import Checksum, Opened, RangedReader, Span
from sdjob.store.s3_again import Again
from sdjob.store.s3_errors import NO_CREDENTIALS, code_of, of_code, s3_errors, status_of
from sdjob.store.s3_requests import ASK_BYTES, spare
from sdjob.store.sentences import NO_BUCKET

PART_BYTES = 16 * 1024 * 1024  # the transfer manager makes parts larger where 10,000 of these would not do
PARTS_AT_ONCE = 4
PIECE_BYTES = 4 * 1024 * 1024
IN_ONE_BYTES = 2 * 1024 * 1024  # read as a whole and sent with one PUT
# The most that a page or a batch may hold: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
PAGE_KEYS = 1000
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # without a single byte
ATTEMPTS = 2  # of the SDK within a call; who waits longer is PatientStore
CONNECTIONS = 64

CHECKSUMS: dict[str, Callable[[bytes, int], int]] = {
    "CRC64NVME": checksums.crc64nvme,
    "CRC32C": checksums.crc32c,
    "CRC32": zlib.crc32,
}
ORIGINS = {
    "env": "the environment",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS configuration file",
    "assume-role": "a role of the profile",
    "assume-role-with-web-identity": "the role of the pod (web identity)",
    "container-role": "the role of the container",
    "iam-role": "the role of the machine",
    "sso": "a login (aws sso login)",
}


class _ConflictError(TransientStoreError):
    """409: another conditional write to the same key was under way; the same request tells who won."""


class S3Store:
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
        self._bucket = place.name
        self._prefix = Prefix(place)
        self._part_bytes = part_bytes
        self._page_keys = page_keys
        self._read_timeout_s = read_timeout_s
        self._reader = reader or RangedReader()
        self._lock = threading.Lock()
        self._made_session: Any = None
        self._made_client: Any = None
        self._made_again: Again | None = None
        self._bucket_seen = False

    @classmethod
    def of(cls, place: Place) -> "S3Store":
        return cls(place)

    @property
    def uri(self) -> str:
        return self._prefix.place.uri

    def read(self, key: str) -> bytes:
        return self._reader.read(self._object(key, whole=self.get_whole))

    def read_to(self, key: str, path: Path, *, on_chunk: Callable[[bytes], None] | None = None) -> None:
        self._reader.read_to(self._object(key, whole=self.get_again), path, on_chunk=on_chunk)

    def write(self, key: str, data: bytes) -> None:
        name = self._prefix.name_of(key)
        with self.errors(key):
            if len(data) < ASK_BYTES:
                self._again().put(name, data, crc64=_crc64(data))
            else:
                self._client().put_object(Bucket=self._bucket, Key=name, Body=data, ChecksumCRC64NVME=_crc64(data))

    def write_file(self, key: str, path: Path) -> None:
        """An upload in parts that fails is aborted, so that no parts are left to be paid for."""
        name = self._prefix.name_of(key)
        with scratch_errors(path), self.errors(key):  # the SDK's errors first: some of them are OSErrors
            if path.stat().st_size <= IN_ONE_BYTES:  # threads of its own for each small file take more time than sending it
                return self.write(key, path.read_bytes())
            extra = {"ChecksumCRC64NVME": _crc64_of_file(path)}
            with create_transfer_manager(self._client(), self._transfer_config()) as manager:
                manager.upload(str(path), self._bucket, name, extra_args=extra).result()
            return None

    def create(self, key: str, data: bytes) -> bool:
        name = self._prefix.name_of(key)
        return with_retries(
            lambda: self._create(key, name=name, data=data), transient=(_ConflictError,), backoff=self._reader.backoff
        )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._prefix.keys_of(self._listed(self._prefix.listing_of(prefix)))

    def stat(self, key: str) -> ObjectInfo | None:
        name = self._prefix.name_of(key)
        try:
            with self.errors(key):
                reply = self._client().head_object(Bucket=self._bucket, Key=name)
        except ObjectMissingError:
            return None
        return ObjectInfo(key, int(reply["ContentLength"]), version=reply["ETag"])

    def delete(self, keys: Iterable[str]) -> None:
        names = [self._prefix.name_of(key) for key in keys]
        for start in range(0, len(names), self._page_keys):
            self._delete(names[start : start + self._page_keys])

    def credentials(self) -> str:
        with s3_errors(self.uri):
            found = self._session().get_credentials()
            if found is None:
                raise NO_CREDENTIALS.error(where=self.uri)
            access_key = found.get_frozen_credentials().access_key
        return f"access key ...{access_key[-4:]} from {ORIGINS.get(found.method, found.method)}"

    def expiry_rules(self) -> "list[str]":
        with s3_errors(self.uri):
            try:
                reply = self._client().get_bucket_lifecycle_configuration(Bucket=self._bucket)
            except ClientError as error:
                if code_of(error) in {"NoSuchLifecycleConfiguration", "NotImplemented"}:
                    return []
                raise
        return s3_expiry(reply.get("Rules", []), prefix=self._prefix.text)

    # ---- calls ----

    def _object(self, key: str, *, whole: Callable[[str], dict[str, Any]]) -> "_S3Object":
        return _S3Object(self, key=key, name=self._prefix.name_of(key), whole=whole)

    def get(self, name: str, **asked: str) -> dict[str, Any]:
        return self._client().get_object(Bucket=self._bucket, Key=name, **asked)

    def get_whole(self, name: str) -> dict[str, Any]:
        return self.get(name, ChecksumMode="ENABLED")

    def get_again(self, name: str) -> dict[str, Any]:
        return self._again().get(name)

    def _create(self, key: str, *, name: str, data: bytes) -> bool:
        with self.errors(key):
            try:
                self._client().put_object(
                    Bucket=self._bucket, Key=name, Body=data, ChecksumCRC64NVME=_crc64(data), IfNoneMatch="*"
                )
            except ClientError as error:
                if status_of(error) == 412:
                    return False
                if status_of(error) == 409:
                    raise _ConflictError("another writer is at this object.", where=self._prefix.where(key)) from error
                raise
        return True

    def _listed(self, name: str) -> Iterator[ObjectInfo]:
        with s3_errors(self.uri):
            pages = (
                self._client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self._bucket, Prefix=name, PaginationConfig={"PageSize": self._page_keys})
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield ObjectInfo(found["Key"], int(found["Size"]), version=found["ETag"])

    def _delete(self, names: "list[str]") -> None:
        wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        with s3_errors(self.uri):
            reply = self._client().delete_objects(Bucket=self._bucket, Delete=wanted)
        for failure in reply.get("Errors", []):  # a reply that succeeds may hold refusals of some of the keys
            if failure.get("Code") != "NoSuchKey":
                raise of_code(str(failure.get("Code")), where=f"s3://{self._bucket}/{failure.get('Key')}")

    @contextmanager
    def errors(self, key: str) -> Generator[None, None, None]:
        """ "No such object" is said only of a bucket that is there: a reply to HEAD is the same 404 for both. Asked once."""
        try:
            with s3_errors(self._prefix.where(key)):
                yield
        except ObjectMissingError:
            self._refuse_missing_bucket()
            raise
        except MissingError as error:  # the bucket is: no matter of which object this was learnt
            error.where = self.uri
            raise

    def _refuse_missing_bucket(self) -> None:
        if self._bucket_seen:
            return
        with s3_errors(self.uri):
            try:
                self._client().head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if status_of(error) == 404:
                    raise NO_BUCKET.error(where=self.uri) from error
                if status_of(error) != 403:  # who may not ask is never answered 404 for an object either
                    raise
        self._bucket_seen = True

    # ---- the SDK ----

    def _session(self) -> Any:
        with self._lock:
            if self._made_session is None:
                self._made_session = boto3.Session()
            return self._made_session

    def _client(self) -> Any:
        """Made by the first call, for all threads: making one is not safe in several at once, using one is
        (https://docs.aws.amazon.com/boto3/latest/guide/clients.html)."""
        with s3_errors(self.uri):
            session = self._session()
            with self._lock:
                if self._made_client is None:
                    self._made_client = session.client("s3", config=self._client_config())
                    spare(self._made_client)
                    self._made_again = Again(self._made_client, bucket=self._bucket)
                return self._made_client

    def _again(self) -> Again:
        self._client()
        assert self._made_again is not None
        return self._made_again

    def _client_config(self) -> Any:
        return Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=self._read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            response_checksum_validation="when_required",  # ranged.py holds the whole object against it
            user_agent=f"sdjob/{__version__} boto3/{boto3.__version__}",  # to put its own together takes a fifth of a small GET
        )

    def _transfer_config(self) -> Any:
        """The classic client: the CRT's takes neither our endpoint nor our time-outs."""
        return TransferConfig(
            multipart_threshold=self._part_bytes + 1,
            multipart_chunksize=self._part_bytes,
            max_concurrency=PARTS_AT_ONCE,
            preferred_transfer_client="classic",
        )


@dataclass(frozen=True)
class _S3Object:
    """The source of a ranged read."""

    store: S3Store
    key: str
    name: str
    whole: Callable[[str], dict[str, Any]]
    """How it is asked for where no range of it is."""

    @property
    def where(self) -> str:
        return f"{self.store.uri}/{self.key}"

    def errors(self) -> AbstractContextManager[object]:
        return self.store.errors(self.key)

    def open(self, span: Span | None, *, version: str | None) -> Opened:
        conditions = {"IfMatch": version} if version else {}
        with self.errors():
            reply = self.store.get(self.name, **conditions, Range=span.http_range) if span else self.whole(self.name)
        size = int(reply["ContentRange"].rpartition("/")[2]) if span else int(reply["ContentLength"])
        return Opened(size, reply.get("ETag", ""), reply["Body"], checksum=None if span else checksum_of(reply))


def checksum_of(reply: dict[str, Any]) -> Checksum | None:
    """That of the whole object, where the store keeps one; a composite one (`...-3`) is a checksum of the parts' checksums."""
    for name, extend in CHECKSUMS.items():
        value: str | None = reply.get(f"Checksum{name}")
        if value and "-" not in value and reply.get("ChecksumType") != "COMPOSITE":
            return Checksum(name, extend, expected=int.from_bytes(base64.b64decode(value), "big"))
    return None


def _crc64(data: bytes) -> str:
    return _base64_crc64(checksums.crc64nvme(data))


def _crc64_of_file(path: Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            crc = checksums.crc64nvme(piece, crc)
    return _base64_crc64(crc)


def _base64_crc64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()

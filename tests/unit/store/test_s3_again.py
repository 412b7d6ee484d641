"""What is done again is what the SDK would have sent, to the letter of its signature; and all but a 200 goes back to the SDK."""

import io
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.auth
import botocore.crt.auth
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError, ConnectionClosedError, NoCredentialsError
from urllib3 import HTTPResponse

from sdjob.store.s3_again import Again
from sdjob.store.s3_requests import spare

BUCKET = "a-bucket"
NAMES = ["runs/x/a", "a b/c+d", "ü/%20", "a=b&c?d#e", "~/(1)'!*", "a:b@c,d;e"]
OF_ONE_CALL = {"amz-sdk-invocation-id", "amz-sdk-request"}  # by these a call of the SDK's own is known, too
OK = {"etag": '"e"', "x-amz-checksum-crc64nvme": "KfXb5+L/cdQ=", "x-amz-checksum-type": "FULL_OBJECT"}
CLIENTS = {
    "amazon": {},
    "path": {"config": {"s3": {"addressing_style": "path"}}},
    "own-endpoint": {"endpoint_url": "http://store.example:9000"},
    "own-endpoint-tls": {"endpoint_url": "https://store.example/below"},
    "virtual": {"endpoint_url": "https://store.example", "config": {"s3": {"addressing_style": "virtual"}}},
    "dual-stack": {"config": {"s3": {"use_dualstack_endpoint": True}}},
    "bodies-unsigned": {"config": {"s3": {"payload_signing_enabled": False}}},
    "session-token": {"aws_session_token": "token"},
    "anonymous": {"config": {"signature_version": botocore.UNSIGNED}},
}


class Wire:
    """In the place of the SDK's connections. `answers` are given first; then it is always 200."""

    def __init__(self) -> None:
        self.asked: list[AWSPreparedRequest] = []
        self.answers: list[int | Exception] = []

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        body = b"1234" if answer == 200 and request.method == "GET" else b""
        headers = {**(OK if answer == 200 else {}), "content-length": str(len(body))}
        return AWSResponse(request.url, answer, headers, HTTPResponse(io.BytesIO(body), headers, answer, preload_content=False))

    @property
    def by_the_sdk(self) -> list[bool]:
        return ["amz-sdk-invocation-id" in request.headers for request in self.asked]


def made(*, config: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, Wire]:
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "x" * 40, "region_name": "eu-central-1"}
    once = Config(retries={"total_max_attempts": 1}, user_agent="sdjob", **(config or {}))
    client, wire = boto3.session.Session().client("s3", config=once, **{**keys, **settings}), Wire()
    client._endpoint.http_session = wire
    spare(client)
    return client, wire


def told(request: AWSPreparedRequest) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in OF_ONE_CALL}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}


def body_of(request: AWSPreparedRequest) -> bytes:
    return request.body if isinstance(request.body, bytes) else request.body.read()


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(module, "get_current_datetime", lambda **_: moment)


@pytest.mark.parametrize("settings", CLIENTS.values(), ids=CLIENTS)
def test_the_same_requests(settings):
    client, wire = made(**settings)
    again = Again(client, bucket=BUCKET)
    again.get("warm")
    again.put("warm", b"warm", crc64="AAAAAAAAAAA=")
    for name in NAMES:
        wire.asked.clear()
        again.get(name)
        client.get_object(Bucket=BUCKET, Key=name, ChecksumMode="ENABLED")
        again.put(name, name.encode(), crc64="KfXb5+L/cdQ=")
        client.put_object(Bucket=BUCKET, Key=name, Body=name.encode(), ChecksumCRC64NVME="KfXb5+L/cdQ=")
        assert wire.by_the_sdk == [False, True, False, True]
        for ours, theirs in (wire.asked[:2], wire.asked[2:]):
            assert (ours.method, ours.url, ours.stream_output) == (theirs.method, theirs.url, theirs.stream_output)
            assert told(ours) == told(theirs)
        assert body_of(wire.asked[2]) == body_of(wire.asked[3]) == name.encode()


def test_the_same_reply():
    client, wire = made()
    again = Again(client, bucket=BUCKET)
    theirs, ours = again.get("a"), again.get("b")
    assert wire.by_the_sdk == [True, False]
    assert {**ours, "Body": ours["Body"].read()}.items() <= {**theirs, "Body": theirs["Body"].read()}.items()
    assert ours.keys() >= {"ContentLength", "ETag", "ChecksumCRC64NVME", "ChecksumType"}


@pytest.mark.parametrize("answer", [301, 403, 404, 503, ConnectionClosedError(endpoint_url="http://x")])
@pytest.mark.parametrize("way", ["get", "put"])
def test_what_goes_wrong_is_the_sdks_to_tell(answer, way):
    """Until a call of its own has succeeded: a store that is busy is asked at the SDK's pace."""
    client, wire = made()
    again = Again(client, bucket=BUCKET)
    call = again.get if way == "get" else lambda name: again.put(name, b"1", crc64="AAAAAAAAAAA=")
    call("a")
    wire.answers = [answer, 404, 404]
    for _ in range(2):
        with pytest.raises(ClientError, match="404"):
            call("b")
    for _ in range(2):
        call("c")
    assert wire.by_the_sdk == [True, False, True, True, True, False]


def test_new_credentials_are_signed_with():
    client, wire = made()
    given = iter(("AKIDFIRST", "AKIDSECOND", "AKIDTHIRD"))

    def refresh() -> dict[str, str]:
        return {"access_key": next(given), "secret_key": "x", "token": "t", "expiry_time": "2020-01-01T00:00:00Z"}

    credentials = RefreshableCredentials.create_from_metadata(refresh(), refresh_using=refresh, method="test")
    credentials._is_expired = lambda: False
    client._request_signer._credentials = credentials
    again = Again(client, bucket=BUCKET)
    for _ in range(2):
        again.get("a")
    assert wire.by_the_sdk == [True, False]
    assert [told(request)["authorization"].split("/")[0].rpartition("=")[2] for request in wire.asked] == [
        "AKIDSECOND",
        "AKIDTHIRD",
    ]


def test_credentials_that_are_gone_are_said_so():
    client, _ = made()
    again = Again(client, bucket=BUCKET)
    again.get("a")
    client._request_signer._credentials = None
    with pytest.raises(NoCredentialsError):
        again.get("a")

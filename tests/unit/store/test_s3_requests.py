"""The signer that is taken for bodies says what the SDK's other one says, to the letter; and only where that would be taken."""

import io
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.auth
import botocore.crt.auth
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from urllib3 import HTTPResponse

from sdjob.store.s3_requests import spare

BODY = bytes(range(256)) * 10_000  # so that it asks before it sends
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "x" * 40, "region_name": "eu-central-1"}
CLIENTS = {
    "amazon": {},
    "own-endpoint": {"endpoint_url": "http://store.example:9000"},
    "session-token": {"endpoint_url": "http://store.example:9000", "aws_session_token": "token"},
    "bodies-unsigned": {"endpoint_url": "http://store.example", "config": {"s3": {"payload_signing_enabled": False}}},
    "anonymous": {"config": {"signature_version": botocore.UNSIGNED}},
    "v2": {"config": {"signature_version": "s3"}},
    "v4a": {"config": {"signature_version": "v4a"}},
}
SIGNED_BY_US = {"amazon", "own-endpoint", "session-token", "bodies-unsigned"}


def asked(*, sparing: bool, config: dict[str, Any] | None = None, **settings: Any) -> AWSPreparedRequest:
    """A part of an upload, as it goes over the wire."""
    once = Config(user_agent="sdjob", **(config or {}))
    client, seen = boto3.session.Session().client("s3", config=once, **{**KEYS, **settings}), []
    if sparing:
        spare(client)

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 200, {}, HTTPResponse(io.BytesIO(), {}, 200, preload_content=False))

    client.meta.events.register_last("before-send.s3.UploadPart", answer)
    part = {"Bucket": "b", "Key": "ü +/x", "UploadId": "an id", "PartNumber": 7, "ChecksumAlgorithm": "CRC64NVME"}
    client.upload_part(Body=io.BytesIO(BODY), **part)
    return seen[0]


def told(request: AWSPreparedRequest) -> dict[str, object]:
    """Host: one signer writes it into the headers, and the connection where none did."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return {name: value for name, value in headers.items() if name != "host" and not name.startswith("amz-sdk-")}


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_same_signature(kind, monkeypatch):
    moment, ours = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), []
    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(module, "get_current_datetime", lambda **_: moment)
    honest = botocore.auth.S3SigV4Auth.add_auth
    monkeypatch.setattr(
        botocore.auth.S3SigV4Auth, "add_auth", lambda signer, request: (ours.append(1), honest(signer, request))[1]
    )
    theirs = asked(sparing=False, **CLIENTS[kind])
    assert ours == []
    spared = asked(sparing=True, **CLIENTS[kind])
    assert bool(ours) == (kind in SIGNED_BY_US)
    assert spared.url == theirs.url
    if kind in SIGNED_BY_US or kind == "anonymous":  # v2 has the clock's own time in it, and v4a never signs the same way twice
        assert told(spared) == told(theirs)

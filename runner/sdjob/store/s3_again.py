"""What the SDK did for one object, done again for the others of a batch: its address, headers, signer and connections, without
all that it works out anew for each call, which takes as long as everything else that a small object needs.

Only the way of the calls that succeed is a shorter one. Whatever else is answered, and whatever goes wrong on the way, sends the
object to the SDK's own call, and all that follow it until one of those has succeeded: retries, redirects, the pace that a busy
store asks for and every error are the SDK's, as ever. So it serves only what may be sent twice.
"""
# The SDK carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ConnectionError as SdkConnectionError
from botocore.exceptions import HTTPClientError
from botocore.response import StreamingBody

SAFE = "/~"  # what the SDK leaves as it is in a key: https://github.com/boto/botocore/blob/develop/botocore/serialize.py
# Of a reply to GetObject, by its header: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
MEMBERS = {
    "etag": "ETag",
    "x-amz-checksum-type": "ChecksumType",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-checksum-crc32": "ChecksumCRC32",
}


@dataclass(frozen=True)
class _Pattern:
    """A request just before it was signed."""

    method: str
    url: str
    headers: dict[str, Any]
    context: dict[str, Any]
    """What the signer looks at."""
    signer: Any


class Again:
    """`client` is the SDK's for S3, and all calls go to one bucket."""

    def __init__(self, client: Any, *, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._seen = threading.local()  # a call is signed by the thread that makes it
        self._patterns: dict[str, _Pattern] = {}  # by operation; `url` is that of the bucket
        client.meta.events.register_last("before-sign.s3", self._see)

    def get(self, name: str) -> dict[str, Any]:
        """As `get_object` with ChecksumMode=ENABLED, as far as its members are in MEMBERS."""
        reply = self._sent("GetObject", name, headers={}, body=None)
        if reply is not None:
            size_bytes = int(reply.headers["content-length"])
            members = {member: reply.headers[header] for header, member in MEMBERS.items() if header in reply.headers}
            return {**members, "ContentLength": size_bytes, "Body": StreamingBody(reply.raw, size_bytes)}
        whole = self._client.get_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")
        self._learn("GetObject", name)
        return whole

    def put(self, name: str, data: bytes, *, crc64: str) -> None:
        if self._sent("PutObject", name, headers={"x-amz-checksum-crc64nvme": crc64}, body=data) is None:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data, ChecksumCRC64NVME=crc64)
            self._learn("PutObject", name)

    def _see(self, request: Any, *, request_signer: Any, **_: object) -> None:
        context = {name: value for name, value in request.context.items() if name != "s3_redirect"}  # which holds the body
        url = "" if request.params else request.url
        self._seen.pattern = _Pattern(request.method, url, dict(request.headers.items()), context, request_signer)

    def _learn(self, operation: str, name: str) -> None:
        seen, end = self._seen.pattern, quote(name, safe=SAFE)
        if seen.url.endswith(f"/{end}"):
            self._patterns[operation] = _Pattern(seen.method, seen.url.removesuffix(end), seen.headers, seen.context, seen.signer)

    def _sent(self, operation: str, name: str, *, headers: Mapping[str, str], body: bytes | None) -> Any:
        """The reply, where it is 200."""
        pattern = self._patterns.get(operation)
        if pattern is None:
            return None
        url, headers = pattern.url + quote(name, safe=SAFE), {**pattern.headers, **headers}
        request = AWSRequest(pattern.method, url, headers=headers, data=body, stream_output=body is None)
        request.context.update(pattern.context)
        pattern.signer.sign(operation, request)
        try:
            reply = self._client._endpoint.http_session.send(request.prepare())
        except (SdkConnectionError, HTTPClientError):
            reply = None
        if reply is not None and reply.status_code == 200:
            return reply
        self._patterns.pop(operation, None)
        if reply is not None:
            reply.raw.close()
        return None

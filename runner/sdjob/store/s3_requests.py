"""What is done otherwise than the SDK would with a request before it goes: time that it would spend, and nothing that is said."""
# The SDK carries no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import io
from typing import Any

import botocore.auth

# From here on a PUT asks before it sends, as in https://pkg.go.dev/github.com/aws/aws-sdk-go-v2/service/s3#Options.
ASK_BYTES = 2 * 1024 * 1024
BY_HASHLIB = "s3v4-by-hashlib"
WITH_BODIES = ("PutObject", "UploadPart")


def spare(client: Any) -> None:
    """For a client that was made just now."""
    botocore.auth.AUTH_TYPE_MAPS[BY_HASHLIB] = botocore.auth.S3SigV4Auth
    client.meta.events.register_last("before-call.s3", _send_small_at_once)
    for operation in WITH_BODIES:
        client.meta.events.register_first(f"choose-signer.s3.{operation}", _hash_by_hashlib)


def _send_small_at_once(params: dict[str, Any], **_: object) -> None:
    """botocore asks (Expect: 100-continue) before every body, however small, and reads the answer byte by byte."""
    body = params.get("body")
    if isinstance(body, io.BytesIO) and body.getbuffer().nbytes < ASK_BYTES:
        params["headers"].pop("Expect", None)


def _hash_by_hashlib(signature_version: object, *, signing_name: str, **_: object) -> str | None:
    """The SDK's own signer in Python where it would take that of the CRT, which asks Python for 4 KiB of a body at a time: over
    HTTP, where bodies are signed, this took a third of the processor time that an upload takes."""
    return BY_HASHLIB if signing_name == "s3" and signature_version in ("v4", "s3v4") else None

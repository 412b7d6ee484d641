"""What S3 and its SDK say, in this package's errors. No message holds a header, a signed address or a secret.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. A reply to HEAD has no body: its code is the status.
"""
# The SDK carries no types.
# pyright: reportMissingTypeStubs=false

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as sdk
from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError

from sdjob.core.errors import SdjobError, StorageError, UsageError
from sdjob.store.base import ObjectDeniedError, TransientStoreError
from sdjob.store.sentences import BUSY, CHANGED, DAMAGED, FULL, NO_BUCKET, NO_OBJECT, UNREACHABLE, Sentence

NEW_TOKEN = "Log in again (aws sso login), or set fresh credentials."  # noqa: S105 (a sentence)
REGION = re.compile(r"[a-z0-9-]{1,32}")
OTHER_REGION = "Set AWS_REGION to the bucket's region."
EXPIRED = Sentence(ObjectDeniedError, "the credentials have expired and could not be renewed.", NEW_TOKEN)
REFUSED = Sentence(
    ObjectDeniedError,
    "this identity may not do that (S3 answers so too for a missing object, to an identity without s3:ListBucket).",
    "Give it s3:ListBucket on the bucket, s3:GetObject, s3:PutObject and s3:DeleteObject on its objects.",
)
ELSEWHERE = Sentence(UsageError, "the bucket is in another region than the client was set up for.", OTHER_REGION)
BAD_NAME = Sentence(UsageError, "that is no name of a bucket or an object on S3.", "Mend the place's name.")

CODES = {
    "NoSuchBucket": NO_BUCKET,
    "NoSuchKey": NO_OBJECT,
    "PreconditionFailed": CHANGED,
    "AccessDenied": REFUSED,
    "AllAccessDisabled": REFUSED,
    "InvalidAccessKeyId": Sentence(
        ObjectDeniedError, "the store does not know this access key.", "Look at AWS_ACCESS_KEY_ID, AWS_PROFILE and the endpoint."
    ),
    "SignatureDoesNotMatch": Sentence(
        ObjectDeniedError, "the secret key does not belong to the access key.", "Look at AWS_SECRET_ACCESS_KEY or the profile."
    ),
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "RequestExpired": EXPIRED,
    "InvalidToken": Sentence(ObjectDeniedError, "the session token is not valid.", NEW_TOKEN),
    "RequestTimeTooSkewed": Sentence(
        ObjectDeniedError, "this machine's clock is more than 15 minutes off.", "Set the clock (NTP); S3 refuses what it signs."
    ),
    "PermanentRedirect": ELSEWHERE,
    "TemporaryRedirect": ELSEWHERE,
    "AuthorizationHeaderMalformed": ELSEWHERE,
    "IllegalLocationConstraintException": ELSEWHERE,
    "InvalidBucketName": BAD_NAME,
    "KeyTooLongError": BAD_NAME,
    "InvalidObjectState": Sentence(
        StorageError, "the object is archived and cannot be read at once.", "Restore it from its storage class first."
    ),
    "BadDigest": DAMAGED,
    "XAmzContentChecksumMismatch": DAMAGED,
    "InvalidDigest": DAMAGED,
    "IncompleteBody": DAMAGED,
    "NoSuchUpload": Sentence(TransientStoreError, "the multipart upload is gone; it starts again."),
    "QuotaExceeded": FULL,
    "InsufficientStorage": FULL,
    "XMinioStorageFull": FULL,
    "NotImplemented": Sentence(
        StorageError, "this store does not know that request.", "Use a store with S3's conditional writes."
    ),
    "InternalError": BUSY,
    "ServiceUnavailable": BUSY,
    "RequestTimeout": BUSY,
    "SlowDown": BUSY,
    "OperationAborted": BUSY,
    "ConditionalRequestConflict": BUSY,
}
STATUSES = {
    301: ELSEWHERE,
    307: ELSEWHERE,
    403: REFUSED,
    404: NO_OBJECT,
    412: CHANGED,
    429: BUSY,
    507: FULL,
}
HEAD_400 = Sentence(
    ObjectDeniedError, "the store refuses the request without a word: expired credentials, or another region.", NEW_TOKEN
)

NO_CREDENTIALS = Sentence(
    ObjectDeniedError,
    "no AWS credentials were found.",
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on AWS, give the machine or the pod a role.",
)
# The first that fits.
SDK_ERRORS: tuple[tuple[type[Exception], Sentence], ...] = (
    (sdk.NoCredentialsError, NO_CREDENTIALS),
    (
        sdk.PartialCredentialsError,
        Sentence(ObjectDeniedError, "half of the AWS credentials is missing.", NO_CREDENTIALS.next_step),
    ),
    (sdk.ProfileNotFound, Sentence(ObjectDeniedError, "the profile that AWS_PROFILE names is not there.", "Mend AWS_PROFILE.")),
    (sdk.UnauthorizedSSOTokenError, EXPIRED),
    (sdk.SSOError, EXPIRED),
    (sdk.LoginError, EXPIRED),
    (sdk.TokenRetrievalError, EXPIRED),
    (
        sdk.CredentialRetrievalError,
        Sentence(ObjectDeniedError, "AWS credentials could not be fetched.", NO_CREDENTIALS.next_step),
    ),
    (sdk.MetadataRetrievalError, Sentence(TransientStoreError, "the machine's credential service does not answer.")),
    (sdk.SSLError, Sentence(TransientStoreError, "no secure connection (TLS).", "Look at the endpoint and its certificate.")),
    (sdk.ConnectionError, UNREACHABLE),
    (sdk.HTTPClientError, UNREACHABLE),
    (sdk.IncompleteReadError, UNREACHABLE),
    (sdk.ResponseStreamingError, UNREACHABLE),
    (HTTPError, UNREACHABLE),
    (sdk.FlexibleChecksumError, Sentence(TransientStoreError, "what arrived does not have the store's checksum.")),
    (sdk.NoRegionError, Sentence(UsageError, "no AWS region is set.", OTHER_REGION)),
    (sdk.ParamValidationError, BAD_NAME),
    (
        sdk.ConfigParseError,
        Sentence(UsageError, "the AWS configuration file cannot be read.", "Mend it, or set AWS_CONFIG_FILE."),
    ),
)


@contextmanager
def s3_errors(where: str) -> Generator[None, None, None]:
    """`where`: the object's or the place's address."""
    try:
        yield
    except ClientError as error:
        raise of_reply(error, where=where) from error
    except (sdk.BotoCoreError, HTTPError) as error:
        raise of_sdk(error, where=where) from error
    except ValueError as error:  # botocore's for an endpoint that is no address
        raise UsageError(
            f"the S3 client cannot be set up: {error}", where=where, next_step="Look at AWS_ENDPOINT_URL_S3."
        ) from error


def of_reply(error: ClientError, *, where: str) -> SdjobError:
    return of_code(code_of(error), status=status_of(error), where=where, reason=_reason(error))


def of_code(code: str, *, where: str, status: int = 0, reason: str = "") -> SdjobError:
    sentence = HEAD_400 if code == "400" else CODES.get(code) or STATUSES.get(status)
    if sentence is None and (status >= 500 or "Throttl" in code or code == "TooManyRequests"):
        sentence = BUSY
    if sentence is None:
        sentence = Sentence(StorageError, f"the store answers {code or 'what S3 does not know'} ({status}).")
    return sentence.error(where=where, reason=reason)


def of_sdk(error: Exception, *, where: str) -> SdjobError:
    for kind, sentence in SDK_ERRORS:
        if isinstance(error, kind):
            return sentence.error(where=where, reason=_asked_at(error) if sentence is UNREACHABLE else "")
    return StorageError(f"the S3 client failed ({type(error).__name__}).", where=where)


def code_of(error: ClientError) -> str:
    return str(_part(error, "Error").get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(_part(error, "ResponseMetadata").get("HTTPStatusCode", 0))


def _asked_at(error: Exception) -> str:
    """The endpoint, without the path and the signature of the request."""
    told: dict[str, Any] = getattr(error, "kwargs", {})
    address = urlsplit(str(told.get("endpoint_url") or ""))
    return f"It was asked for at {address.scheme}://{address.netloc.rpartition('@')[2]}." if address.netloc else ""


def _reason(error: ClientError) -> str:
    """AWS names who was refused what and by which policy, and in which region a bucket is; else a code says it all."""
    told = _part(error, "Error")
    message, region = str(told.get("Message", "")), str(told.get("Region", ""))
    if CODES.get(code_of(error)) is ELSEWHERE and REGION.fullmatch(region):
        return f"It is in {region}."
    return f"{message.rstrip('.')}." if code_of(error) == "AccessDenied" and message.startswith("User: ") else ""


def _part(error: ClientError, name: str) -> dict[str, Any]:
    response: dict[str, Any] = dict(error.response)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    return response.get(name, {})

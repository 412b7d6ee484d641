"""What Google Cloud Storage and its SDK say, in this package's errors. The SDK's own texts hold addresses of upload sessions,
which are as good as keys: none of them is passed on.

Statuses: https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""
# The SDK carries few types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from urllib3.exceptions import HTTPError

from sdjob.core.errors import SdjobError, StorageError, UsageError
from sdjob.store.base import ObjectDeniedError, TransientStoreError
from sdjob.store.sentences import BUSY, CHANGED, DAMAGED, FULL, NO_OBJECT, UNREACHABLE, Sentence

KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
LOG_IN = "Set GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth application-default login, or give the machine a service account."
REFUSED = Sentence(
    ObjectDeniedError,
    "this identity may not do that.",
    "Give it roles/storage.objectAdmin on the bucket; for reading alone roles/storage.objectViewer.",
)
NOT_ACCEPTED = Sentence(ObjectDeniedError, "the credentials are not accepted.", LOG_IN)
BAD_REQUEST = Sentence(StorageError, "the store does not take the request.", "Look at the place's name.")
STATUSES = {
    400: BAD_REQUEST,
    401: NOT_ACCEPTED,
    403: REFUSED,
    404: NO_OBJECT,
    408: BUSY,
    409: BUSY,
    410: Sentence(TransientStoreError, "the upload session is gone; the upload starts again."),
    412: CHANGED,
    429: BUSY,
    507: FULL,
}
TOLD = {400, 401, 403}  # where the store's own words say more: who lacks which permission
REASON_LETTERS = 300

NO_CREDENTIALS = Sentence(ObjectDeniedError, "no Google credentials were found.", LOG_IN)
# The first that fits.
SDK_ERRORS: tuple[tuple[type[Exception], Sentence], ...] = (
    (auth.TransportError, UNREACHABLE),
    (auth.DefaultCredentialsError, NO_CREDENTIALS),
    (auth.RefreshError, Sentence(ObjectDeniedError, "the credentials have expired and could not be renewed.", LOG_IN)),
    (auth.GoogleAuthError, Sentence(ObjectDeniedError, "the Google credentials cannot be used.", LOG_IN)),
    (DataCorruption, DAMAGED),
    (RetryError, UNREACHABLE),
    (requests.exceptions.SSLError, Sentence(TransientStoreError, "no secure connection (TLS).", "Look at the certificates.")),
    (requests.exceptions.InvalidURL, Sentence(UsageError, "STORAGE_EMULATOR_HOST is no address.", "Mend or unset it.")),
    (requests.exceptions.MissingSchema, Sentence(UsageError, "STORAGE_EMULATOR_HOST is no address.", "Mend or unset it.")),
    (requests.exceptions.RequestException, UNREACHABLE),
    (HTTPError, UNREACHABLE),
)


@contextmanager
def gcs_errors(where: str) -> Generator[None, None, None]:
    """`where`: the object's or the place's address."""
    try:
        yield
    except (GoogleAPICallError, InvalidResponse) as error:
        raise of_call(error, where=where) from error
    except (auth.GoogleAuthError, DataCorruption, RetryError, requests.exceptions.RequestException, HTTPError) as error:
        raise of_sdk(error, where=where) from error
    except ValueError as error:  # the SDK's for a name that can be no bucket's
        raise UsageError(f"the client for GCS does not take this: {error}", where=where) from error


def of_sdk(error: Exception, *, where: str) -> SdjobError:
    if isinstance(error, auth.DefaultCredentialsError) and (named := os.environ.get(KEY_FILE)):
        state = "holds no credentials" if Path(named).is_file() else "is not there"
        return ObjectDeniedError(f"the file that {KEY_FILE} names {state}.", where=where, next_step="Mend or unset it.")
    sentence = next(sentence for kind, sentence in SDK_ERRORS if isinstance(error, kind))
    return sentence.error(where=where, reason=_asked_at(error) if sentence is UNREACHABLE else "")


def _asked_at(error: Any) -> str:
    """The endpoint, without the path: that of an upload session is as good as a key."""
    request = getattr(error, "request", None) or getattr(getattr(error, "cause", None), "request", None)
    address = urlsplit(str(getattr(request, "url", "") or ""))
    return f"It was asked for at {address.scheme}://{address.netloc.rpartition('@')[2]}." if address.netloc else ""


def of_call(error: Any, *, where: str) -> SdjobError:
    response: Any = error.response
    if response is None:
        return of_status(int(error.code or 0), where=where)
    return of_status(int(response.status_code), where=where, told=told_by(response))


def of_status(status: int, *, where: str, told: str = "") -> SdjobError:
    """`told`: what the store itself says."""
    if "crc32c" in told.lower() or "md5" in told.lower():
        return DAMAGED.error(where=where)
    if status == 403 and "rate limit" in told.lower():
        return BUSY.error(where=where)
    if status == 403 and "quota" in told.lower():
        return FULL.error(where=where, reason=told)
    sentence = STATUSES.get(status) or (BUSY if status >= 500 else None)
    if sentence is None:
        sentence = Sentence(StorageError, f"the store answers {status}.")
    return sentence.error(where=where, reason=told if status in TOLD else "")


def told_by(response: Any) -> str:
    """The sentence in a reply of either kind: JSON of the API, plain text of a download."""
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = str(response.text)
    return "" if "<" in text else " ".join(text.split())[:REASON_LETTERS]

"""The Hub's own client (https://huggingface.co/docs/huggingface_hub), made quiet and impatient for a program's use.

Its progress bars and log lines are kept off stderr. It waits for nothing: where the Hub says "later", the call ends at once,
since the client's own waits (minutes, under a rate limit) would sleep through a stop request. Whoever calls a store retries.
"""

import logging
import os
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType]
    disable_progress_bars,
    parse_ratelimit_headers,
)
from huggingface_hub.utils._http import default_client_factory

from sdjob import __version__
from sdjob.core.errors import UsageError

LATER = {408, 429, 500, 502, 503, 504}  # what the client itself would retry
TIMEOUTS_S = {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": 60.0}  # read: a commit of many files takes the Hub a while
LONGEST_WAIT_S = 60.0  # a rate limit's window is 5 minutes (https://huggingface.co/docs/hub/rate-limits): a few tries span it

_lock = threading.Lock()
_configured = False


class LaterError(Exception):
    """The Hub asks to come back later, or has failed for now."""

    def __init__(self, status: int, *, retry_after_s: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def hub_api() -> HfApi:
    """A client of the endpoint that HF_ENDPOINT names; asks nothing of the network."""
    _configure()
    return HfApi(endpoint=endpoint(), library_name="sdjob", library_version=__version__)


def endpoint() -> str:
    """Of this moment's environment: the client's own constant is of the moment it was imported."""
    url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"HF_ENDPOINT is '{url}', which is no web address.", next_step="Unset it, or write https://HOST.")
    return url


def request_headers() -> dict[str, str]:
    """As the client sends them, with its token."""
    return build_hf_headers(library_name="sdjob", library_version=__version__)


def has_token() -> bool:
    """Whether the client would send one, by its own chain of places: HF_TOKEN, the file of `hf auth login`, ..."""
    return "authorization" in request_headers()


def token_source() -> str:
    """Where the client's token comes from, for people; the token itself is in no message."""
    if os.environ.get("HF_OIDC_RESOURCE"):
        return "HF_OIDC_RESOURCE"
    names = (name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name))
    return next(names, constants.HF_TOKEN_PATH)


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Around uploads: httpx deprecates what the client does there; what the Hub remarks on a card is no trouble of a job."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Use 'content=", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Warnings while validating metadata", category=UserWarning)
        yield


def _configure() -> None:
    """Once a process."""
    global _configured  # noqa: PLW0603
    with _lock:
        if _configured:
            return
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # where the variable is set it decides
            disable_progress_bars()
        _silence(logging.getLogger("huggingface_hub"))
        set_client_factory(_client)
        _configured = True


def _silence(logger: logging.Logger) -> None:
    """Lines still reach a root logger that somebody has set up."""
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler())
    logger.propagate = True


def _client() -> httpx2.Client:
    client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {"request": [*hooks["request"], _limit_time], "response": [*hooks["response"], _refuse_to_wait]}
    return client


def _limit_time(request: httpx2.Request) -> None:
    """The client sets no limit, or none explicitly, in most of its calls: such a call could hang for good."""
    asked = {name: seconds for name, seconds in request.extensions.get("timeout", {}).items() if seconds is not None}
    request.extensions = {**request.extensions, "timeout": {**TIMEOUTS_S, **asked}}


def _refuse_to_wait(response: httpx2.Response) -> None:
    if response.status_code in LATER:
        raise LaterError(response.status_code, retry_after_s=retry_after_s(response))


def retry_after_s(response: httpx2.Response) -> float | None:
    """What the Hub asks for, by Retry-After or by its rate limit's own header, within reason."""
    limit = parse_ratelimit_headers(response.headers)
    told = response.headers.get("Retry-After", "").strip()
    if told.isdigit():
        return min(float(told), LONGEST_WAIT_S)
    return min(float(limit.reset_in_seconds), LONGEST_WAIT_S) if limit and limit.remaining == 0 else None

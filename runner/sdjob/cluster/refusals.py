"""What the API server refuses, as sentences. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from sdjob.core.errors import DeniedError, MissingError, SdjobError, StorageError, UsageError

JOBSET_INSTALL = "https://jobset.sigs.k8s.io/docs/installation/"
TRY_AGAIN = frozenset({408, 410, 429, 500, 502, 503, 504})


class UnreachableError(StorageError):
    """The API server gave no answer, or none that says anything of the job: never a failure of the job itself."""

    retry_after_s: float | None = None


class ExistsError(UsageError):
    """There is an object of this name already."""


def refusal(status: int, *, body: bytes, verb: str, path: str, headers: Mapping[str, str]) -> SdjobError:
    message = message_of(body)
    if status in TRY_AGAIN:
        error = UnreachableError(f"the API server is not well: {message or status}.", where=path)
        error.retry_after_s = seconds(headers.get("Retry-After"))
        return error
    if status == 401:
        return DeniedError(
            "the API server does not know who you are.", where=path, next_step="Log in again, as with `gcloud`, `aws` or `az`."
        )
    if status == 403:
        return DeniedError(
            message or "forbidden.", where=path, next_step=f"Ask for the right, or try `kubectl auth can-i {right(verb, path)}`."
        )
    if status == 404:
        return missing(path, message=message)
    if status == 409:
        return ExistsError(message or "exists already.", where=path)
    return UsageError(f"the API server refuses this: {message or status}.", where=path)


def missing(path: str, *, message: str) -> SdjobError:
    if "/jobset.x-k8s.io/" in path and "namespaces" not in message:
        return MissingError(
            "the cluster has no JobSet controller, and this job is a gang.", next_step=f"Install it once: {JOBSET_INSTALL}"
        )
    return MissingError(
        f"{message or 'not found'}.", where=path, next_step="Look at the namespace: run.kubernetes.namespace or -n."
    )


def message_of(body: bytes) -> str:
    """A Status object's message, or the first line of what some proxy says."""
    try:
        status: Any = json.loads(body)
        return str(status["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", errors="replace").strip().partition("\n")[0][:200]


def right(verb: str, path: str) -> str:
    """`create jobs.batch -n ml`, as kubectl asks."""
    word = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(verb, "get")
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    namespace, _, rest = path.partition("/namespaces/")[2].partition("/")
    kind = rest.partition("/")[0] or parts[-1]
    return f"{word} {kind}{'.' + group if group else ''}" + (f" -n {namespace}" if namespace else "")


def seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None

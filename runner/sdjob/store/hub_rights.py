"""Whether the token may publish to a repository, told from what it is permitted to do: nothing is written, nothing made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import RevisionNotFoundError

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.places import Place
from sdjob.store.base import ObjectDeniedError
from sdjob.store.hub_client import endpoint, has_token, hub_api, token_source
from sdjob.store.hub_errors import hub_errors, no_token, read_only
from sdjob.store.hub_look import Head, look

WRITING = "repo.write"
# What an organization's member may do: https://huggingface.co/docs/hub/organizations-security
ROLES_THAT_WRITE = {"contributor", "write", "admin"}


@dataclass(frozen=True)
class Rights:
    told: str
    """In a few words."""

    exists: bool
    """Whether the repository is there."""


def writing_rights(place: Place, *, private: bool) -> Rights:
    """ObjectDeniedError where the token may not write there, UsageError where the repository is public and
    should be private."""
    if not has_token():
        raise no_token(place)
    with hub_errors(place, writing=True):
        client: Any = hub_api()
        who: dict[str, Any] = client.whoami()
    refuse_stranger(place, who=who)
    certain = refuse_reader(place, token=who.get("auth", {}).get("accessToken") or {})
    doubt = "" if certain else ", as far as the Hub tells of this kind of token"
    head = head_of(place)
    return Rights(f"the token may write to {place.name}{doubt}; {state_of(place, head=head, private=private)}.", head is not None)


def refuse_stranger(place: Place, *, who: Mapping[str, Any]) -> None:
    owner = owner_of(place)
    if owner in {who["name"], *writable_organizations(who)}:
        return
    raise ObjectDeniedError(
        f"the account {who['name']} of the token from {token_source()} may not write to repositories of {owner}.",
        where=place.uri,
        next_step=f"Publish to hf://{who['name']}/..., or set HF_TOKEN to a token of an account that may write for {owner}.",
    )


def writable_organizations(who: Mapping[str, Any]) -> Iterator[str]:
    """An organization that does not tell the member's role is given the benefit of the doubt."""
    organizations: list[dict[str, str]] = who.get("orgs") or []
    for organization in organizations:
        if organization.get("roleInOrg", "write") in ROLES_THAT_WRITE:
            yield organization["name"]


def refuse_reader(place: Place, *, token: Mapping[str, Any]) -> bool:
    """True where the token's permissions say that it may write, False where they say nothing."""
    match token.get("role"):
        case "write":
            return True
        case "read":
            raise read_only(place)
        case "fineGrained":
            if WRITING not in set(permissions(place, token=token)):
                raise read_only(place)
            return True
        case _:
            return False


def permissions(place: Place, *, token: Mapping[str, Any]) -> Iterator[str]:
    """Of a fine-grained token, for the repository or for all of its owner's: the page of the token shows the same list."""
    fine: dict[str, Any] = token.get("fineGrained") or {}
    scopes: list[dict[str, Any]] = fine.get("scoped") or []
    for scope in scopes:
        if scope.get("entity", {}).get("name") in {place.name, owner_of(place)}:
            yield from scope.get("permissions") or []


def state_of(place: Place, *, head: Head | None, private: bool) -> str:
    if head is None:
        return f"it does not exist yet and would be made {'private' if private else 'public'}"
    if private and not head.private:
        raise UsageError(
            "this repository is public, and `private` is true.",
            where=place.uri,
            next_step="Set private: false to publish for everybody to see, make the repository private, or take another one.",
        )
    return f"it is there, {'private' if head.private else 'public'} ({endpoint()}/{place.name})"


def head_of(place: Place) -> Head | None:
    try:
        return look(place, revision=place.revision or "main")
    except MissingError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise  # a repository without this branch is there
        return None


def owner_of(place: Place) -> str:
    return place.name.partition("/")[0]

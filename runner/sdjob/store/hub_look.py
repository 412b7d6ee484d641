"""What a look at a repository on the Hub tells: its commit, who may see it, its files."""

from collections.abc import Iterable
from dataclasses import dataclass

from huggingface_hub.hf_api import RepoFile, RepoFolder

from sdjob.core.errors import MissingError
from sdjob.spec.places import Place
from sdjob.store.hub_client import hub_api
from sdjob.store.hub_errors import hub_errors

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Head:
    """A revision, as one look finds it."""

    commit: str
    private: bool
    gated: bool


def kind_of(place: Place) -> str:
    """As the client calls it."""
    return "dataset" if place.hub_kind == "datasets" else "model"


def look(place: Place, *, revision: str) -> Head:
    with hub_errors(place):
        info = hub_api().repo_info(place.name, repo_type=kind_of(place), revision=revision, timeout=TIMEOUT_S)
    if info.sha is None:
        raise MissingError("the repository has no commit.", where=place.uri, next_step="Put something into it.")
    return Head(commit=info.sha, private=bool(info.private), gated=bool(getattr(info, "gated", False)))


def resolve_commit(place: Place) -> str:
    """The commit, 40 digits, that the place's revision means now. Raises what keeps its files from being read, too: a gated
    repository tells its commit to everybody, its files only to those who may have them."""
    head = look(place, revision=place.revision or "main")
    if head.gated:
        with hub_errors(place):
            hub_api().auth_check(place.name, repo_type=kind_of(place))
    return head.commit


def tree(place: Place, *, commit: str) -> dict[str, RepoFile]:
    """Every file of a commit, by its path."""
    with hub_errors(place):
        entries: Iterable[RepoFile | RepoFolder] = hub_api().list_repo_tree(
            place.name, recursive=True, revision=commit, repo_type=kind_of(place)
        )
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

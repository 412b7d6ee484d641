"""Whether a token may publish, asked without writing anything; on the double of the Hub, with the real client."""

from pathlib import Path

import pytest

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.places import Place, parse_place
from sdjob.store.base import ObjectDeniedError, TransientStoreError
from sdjob.store.hub_rights import Rights, refuse_reader, refuse_stranger, writing_rights


def place(text: str) -> Place:
    return parse_place(text, base=Path("/")).on_hub("models")


@pytest.fixture(autouse=True)
def nothing_is_written(desk):
    before = dict(desk.hub.repositories)
    yield
    assert {request.method for request in desk.hub.requests} <= {"GET"}
    assert set(desk.hub.repositories) >= set(before)


def test_a_repository_that_is_not_there_yet(desk):
    told = "the token may write to me/new-one; it does not exist yet and would be made private."
    assert writing_rights(place("hf://me/new-one"), private=True) == Rights(told, exists=False)
    assert writing_rights(place("hf://me/new-one"), private=False).told.endswith("would be made public.")
    assert ("models", "me/new-one") not in desk.hub.repositories


def test_one_that_is_there(desk):
    desk.hub.new_repo("models", "me/there", private=True)
    rights = writing_rights(place("hf://me/there"), private=True)
    assert (rights.exists, "it is there, private (" in rights.told) == (True, True)


def test_a_public_one_that_should_be_private_is_64(desk):
    desk.hub.new_repo("models", "me/open", private=False)
    with pytest.raises(UsageError, match="this repository is public"):
        writing_rights(place("hf://me/open"), private=True)
    assert "public" in writing_rights(place("hf://me/open"), private=False).told


def test_a_branch_that_is_not_there(desk):
    desk.hub.new_repo("models", "me/branches", private=True)
    with pytest.raises(MissingError, match="no branch, tag or commit 'other'"):
        writing_rights(place("hf://me/branches@other"), private=True)


def test_no_token(desk):
    desk.log_in(None)
    with pytest.raises(ObjectDeniedError, match="writing to the Hub needs a token"):
        writing_rights(place("hf://me/x"), private=True)


def test_a_token_that_may_only_read(desk):
    desk.log_in(desk.hub.read_token)
    with pytest.raises(ObjectDeniedError, match="may not write to repositories of me") as caught:
        writing_rights(place("hf://me/x"), private=True)
    assert desk.hub.read_token not in str(caught.value)


def test_a_token_of_somebody_else(desk):
    desk.log_in(desk.hub.stranger_token)
    with pytest.raises(ObjectDeniedError, match="the account stranger of the token from HF_TOKEN may not write"):
        writing_rights(place("hf://me/x"), private=True)


def test_a_wrong_token(desk):
    desk.log_in(desk.hub.invalid_token)
    with pytest.raises(ObjectDeniedError) as caught:
        writing_rights(place("hf://me/x"), private=True)
    assert desk.hub.invalid_token not in str(caught.value)


def test_the_hub_out_of_reach(desk, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientStoreError, match="cannot be reached"):
        writing_rights(place("hf://me/x"), private=True)


@pytest.mark.parametrize(
    ("role", "may"), [("admin", True), ("write", True), ("contributor", True), (None, True), ("read", False)]
)
def test_members_of_an_organization(desk, role, may):
    organization = {"name": "lab", **({"roleInOrg": role} if role else {})}
    who = {"name": "me", "orgs": [{"name": "other", "roleInOrg": "admin"}, organization]}
    if may:
        refuse_stranger(place("hf://lab/x"), who=who)
    else:
        with pytest.raises(ObjectDeniedError, match="may not write to repositories of lab"):
            refuse_stranger(place("hf://lab/x"), who=who)


class TestFineGrained:
    def token(self, name: str, *permissions: str) -> dict:
        scoped = [{"entity": {"type": "user", "name": name}, "permissions": list(permissions)}]
        return {"role": "fineGrained", "fineGrained": {"scoped": scoped, "global": []}}

    @pytest.mark.parametrize("name", ["me", "me/x"])
    def test_one_that_may_write(self, name):
        assert refuse_reader(place("hf://me/x"), token=self.token(name, "repo.content.read", "repo.write"))

    @pytest.mark.parametrize(
        ("name", "permissions"), [("me", ["repo.content.read"]), ("me/y", ["repo.write"]), ("lab", ["repo.write"]), ("me", [])]
    )
    def test_one_that_may_not(self, name, permissions):
        with pytest.raises(ObjectDeniedError):
            refuse_reader(place("hf://me/x"), token=self.token(name, *permissions))

    def test_a_kind_of_token_that_tells_nothing(self):
        assert not refuse_reader(place("hf://me/x"), token={})

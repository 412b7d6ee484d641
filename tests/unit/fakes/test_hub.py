"""The Hub's double against the real client: what our tests lean on is what the Hub does."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from fakes.hub import Desk
from fakes.hub_repository import BORN_WITH
from sdjob.store.hub_client import quiet

FILES = {f"unet/{number}.json": b"{}" for number in range(12)} | {"weights.safetensors": bytes(range(256)) * 9, "vae/x.txt": b"x"}


@pytest.fixture
def api(desk: Desk) -> HfApi:
    return HfApi(endpoint=desk.hub.endpoint)


def add(api: HfApi, name: str, files: dict[str, bytes], **options):
    with quiet():
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        return api.create_commit(name, operations=operations, commit_message="add", **options)


def test_a_snapshot_has_every_file_of_every_page(desk, tmp_path):
    desk.hub.new_repo("models", "a/snapshot", FILES)
    folder = Path(snapshot_download("a/snapshot", endpoint=desk.hub.endpoint, cache_dir=tmp_path))
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")} == FILES
    assert len(desk.hub.sent(r"GET .*/tree/")) == 4  # 14 files and 2 folders, 5 a page


def test_lfs_content_comes_from_another_host_without_the_token(desk, tmp_path):
    desk.hub.new_repo("datasets", "a/linked", FILES)
    path = hf_hub_download("a/linked", "weights.safetensors", repo_type="dataset", endpoint=desk.hub.endpoint, local_dir=tmp_path)
    assert Path(path).read_bytes() == FILES["weights.safetensors"]
    (fetched,) = desk.hub.sent("GET /lfs/")
    assert fetched.host.startswith("localhost:")
    assert fetched.token is None


def test_a_made_repository_is_born_with_gitattributes_and_stays_private(api, desk):
    api.create_repo("me/born", private=True)
    assert desk.hub.files("models", "me/born") == BORN_WITH
    assert api.repo_info("me/born").private is True
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo("me/born")


def test_commits_have_parents_and_only_the_head_may_be_followed(api, desk):
    desk.hub.new_repo("models", "me/commits")
    first = api.repo_info("me/commits").sha
    second = add(api, "me/commits", {"a.txt": b"1", "w.safetensors": b"w"}, parent_commit=first).oid
    with pytest.raises(HfHubHTTPError, match="412"):
        add(api, "me/commits", {"a.txt": b"2"}, parent_commit=first)
    api.create_commit("me/commits", operations=[CommitOperationDelete("a.txt")], commit_message="gone")
    assert [commit.parent for commit in desk.hub.commits("models", "me/commits")][1:] == [first, None]
    assert desk.hub.files("models", "me/commits", second)["a.txt"] == b"1"
    assert desk.hub.files("models", "me/commits") == {**BORN_WITH, "w.safetensors": b"w"}


def test_lfs_content_is_sent_once(api, desk):
    desk.hub.new_repo("models", "me/once")
    add(api, "me/once", {"w.safetensors": b"w"})
    add(api, "me/once", {"copy.safetensors": b"w"})
    assert len(desk.hub.sent("PUT /lfs/")) == 1
    assert desk.hub.files("models", "me/once")["copy.safetensors"] == b"w"


def test_revisions_are_branches_tags_and_commits(api, desk):
    repository = desk.hub.new_repo("models", "me/revisions", {"a": b"1"})
    first = repository.branches["main"]
    repository.tags["v1"] = first
    later = repository.commit({"a": b"2"}, title="later", branch="main").oid
    assert [api.repo_info("me/revisions", revision=name).sha for name in ("main", "v1", first)] == [later, first, first]
    assert [ref.name for ref in api.list_repo_refs("me/revisions").tags] == ["v1"]
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("me/revisions", revision="v2")


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("stranger_token", 404)])
def test_a_private_repository_and_a_missing_one_look_the_same(api, desk, token, status):
    desk.hub.new_repo("models", "me/private", private=True)
    desk.log_in(token and getattr(desk.hub, token))
    for name in ("me/private", "me/none"):
        with pytest.raises(HfHubHTTPError) as refused:
            api.repo_info(name)
        assert refused.value.response.status_code == status
        assert isinstance(refused.value, RepositoryNotFoundError) == (status == 404)  # the client looks for https:// at 401


def test_a_gated_repository_lists_its_files_and_keeps_them(api, desk):
    repository = desk.hub.new_repo("models", "a/gated", FILES, gated=True)
    assert len(list(api.list_repo_tree("a/gated", recursive=True))) == 16
    for token, status in ((None, 401), (desk.hub.read_token, 403)):
        desk.log_in(token)
        with pytest.raises(GatedRepoError) as refused:
            api.auth_check("a/gated")
        assert refused.value.response.status_code == status
    repository.granted.add("me")
    api.auth_check("a/gated")


def test_a_card_is_judged_before_anything_is_sent(api, desk):
    desk.hub.new_repo("models", "me/card")
    with pytest.raises(ValueError, match="license"):
        add(api, "me/card", {"README.md": b"---\nlicense: none-such\n---\n", "w.safetensors": b"w"})
    assert desk.hub.sent("PUT|commit") == []

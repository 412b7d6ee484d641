"""Publishing to the Hub, by the real client against the double: one commit, never over somebody else's."""

from itertools import count

import pytest
import yaml
from huggingface_hub import ModelCard

from fakes.checkpoints import make_job
from fakes.hub_card import card_problems
from fakes.hub_repository import BORN_WITH
from fakes.publishing import ANOTHER, FILES, JOB, LATER, WEIGHTS, Publishing
from sdjob.core.errors import StoppedError, UsageError
from sdjob.job.card import CARD_NAME, CardFacts, model_card
from sdjob.job.licence import Licence
from sdjob.store.base import ObjectChangedError, ObjectDeniedError, TransientStoreError
from sdjob.store.hub import HubStore
from sdjob.store.hub_commit import PORTION_BYTES

NUMBERS = count()


@pytest.fixture
def publishing(desk, tmp_path) -> Publishing:
    return Publishing(desk, name=f"me/result-{next(NUMBERS)}", root=tmp_path)


class TestOneCommit:
    def test_a_repository_is_made_and_gets_everything_at_once(self, publishing):
        outcome = publishing()
        assert outcome.action == "published"
        assert publishing.there == {**BORN_WITH, **FILES, "sdjob.json": publishing.there["sdjob.json"]}
        born, ours = publishing.hub.commits("models", publishing.name)[::-1]
        assert set(born.files) == set(BORN_WITH)
        assert ours.parent == born.oid
        assert publishing.num_commits == 2
        assert publishing.record["digest"] == "d1"

    @pytest.mark.parametrize("private", [True, False])
    def test_a_new_repository_is_as_private_as_the_job_says(self, publishing, private):
        publishing(private=private)
        assert publishing.hub.repository("models", publishing.name).private is private

    def test_the_same_result_again_uploads_nothing_and_commits_nothing(self, publishing):
        publishing()
        publishing.hub.forget()
        assert publishing().action == "skipped"
        assert publishing.hub.sent("^(PUT|POST|DELETE)") == []
        assert publishing.num_commits == 2

    def test_a_finished_publish_stays_skipped_when_the_owner_has_made_it_public(self, publishing):
        publishing()
        publishing.hub.repository("models", publishing.name).private = False
        assert publishing().action == "skipped"

    def test_a_later_step_sends_what_changed_and_removes_what_is_gone(self, publishing):
        publishing()
        (publishing.results / "x.kohya.safetensors").unlink()
        (publishing.results / "pytorch_lora_weights.safetensors").write_bytes(WEIGHTS * 2)
        publishing.hub.forget()
        outcome = publishing(LATER)
        assert (outcome.action, outcome.removed) == ("updated", ("x.kohya.safetensors",))
        assert "x.kohya.safetensors" not in publishing.there
        assert publishing.there["pytorch_lora_weights.safetensors"] == WEIGHTS * 2
        assert publishing.record["digest"] == "d2"
        assert [request.size_bytes for request in publishing.hub.sent("^PUT")] == [len(WEIGHTS) * 2]
        assert publishing.num_commits == 3

    def test_a_branch_is_published_to(self, publishing):
        repository = publishing.hub.new_repo("models", publishing.name, private=True)
        repository.branches["v2"] = repository.branches["main"]
        publishing.name += "@v2"
        publishing()
        name = publishing.name.removesuffix("@v2")
        assert set(FILES) < set(publishing.hub.files("models", name, "v2"))
        assert publishing.hub.files("models", name) == BORN_WITH

    def test_a_branch_that_is_not_there_is_not_made(self, publishing):
        publishing.hub.new_repo("models", publishing.name, private=True)
        publishing.name += "@v2"
        with pytest.raises(Exception, match="no branch, tag or commit 'v2'"):
            publishing()


class TestWhoseItIs:
    def test_another_runs_result_is_refused_then_replaced(self, publishing):
        publishing(ANOTHER)
        before = publishing.there
        with pytest.raises(UsageError, match=r"another run.*replace: true"):
            publishing()
        assert publishing.there == before
        assert publishing(replace=True).action == "replaced"
        assert publishing.record["digest"] == "d1"

    def test_files_of_a_person_are_refused_and_nothing_is_made(self, publishing):
        publishing.hub.new_repo("models", publishing.name, {"README.md": b"my own", "notes.txt": b"mine"}, private=True)
        with pytest.raises(UsageError, match="no run of sdjob published"):
            publishing()
        assert publishing.num_commits == 1

    def test_a_public_repository_is_refused_where_the_job_says_private(self, publishing):
        publishing.hub.new_repo("models", publishing.name)
        with pytest.raises(UsageError) as refused:
            publishing()
        assert str(refused.value) == (
            f"publish: hf://{publishing.name}: this repository is public, and `private` is true. "
            "Set private: false to publish for everybody to see, make the repository private, or take another one."
        )
        assert publishing.hub.sent("^PUT|/commit/|preupload") == []
        assert publishing(private=False).action == "published"

    def test_the_visibility_of_what_is_there_is_never_changed(self, publishing):
        publishing.hub.new_repo("models", publishing.name, private=True)
        publishing(private=False)
        assert publishing.hub.repository("models", publishing.name).private is True
        assert publishing.hub.sent("settings|create") == []

    def test_a_commit_of_somebody_else_meanwhile_is_never_written_over(self, publishing, monkeypatch):
        def somebody() -> None:
            repository = publishing.hub.repository("models", publishing.name)
            repository.commit({**BORN_WITH, "README.md": b"theirs"}, title="theirs")

        publishing.in_between(somebody, monkeypatch)
        with pytest.raises(ObjectChangedError) as changed:
            publishing()
        assert str(changed.value) == (
            f"hf://{publishing.name}: somebody else has committed to the repository meanwhile; nothing was written over it. "
            "Run the same command again: it looks at what is there now."
        )
        assert publishing.there == {**BORN_WITH, "README.md": b"theirs"}

    def test_somebody_who_made_the_repository_first_is_looked_at_too(self, publishing, monkeypatch):
        ensure = HubStore.ensure_repository

        def slow(store: HubStore, *, private: bool) -> None:
            monkeypatch.setattr(HubStore, "ensure_repository", ensure)
            publishing.hub.new_repo("models", publishing.name, {"theirs.txt": b"theirs"}, private=True)
            ensure(store, private=private)

        monkeypatch.setattr(HubStore, "ensure_repository", slow)
        with pytest.raises(UsageError, match=r"theirs\.txt"):
            publishing()
        assert publishing.there == {"theirs.txt": b"theirs"}


class TestTrouble:
    @pytest.mark.parametrize(("method", "path"), [("POST", "/repos/create"), ("POST", "/commit/"), ("PUT", "^/lfs/")])
    @pytest.mark.parametrize("kind", ["drop", "drop the reply"])
    def test_a_lost_request_or_reply_ends_in_one_commit(self, publishing, method, path, kind, monkeypatch):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        publishing.hub.fail(method, path, kind=kind)
        assert publishing().uploaded == (*sorted(FILES), "sdjob.json")
        assert publishing.there == {**BORN_WITH, **FILES, "sdjob.json": publishing.there["sdjob.json"]}
        assert publishing.num_commits == 2

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/tree/"), ("POST", "preupload"), ("POST", "batch"), ("POST", "/commit/")]
    )
    def test_an_outage_of_any_route_is_waited_out(self, publishing, method, path):
        publishing.hub.fail(method, path, status=503, times=2)
        publishing()
        assert publishing.num_commits == 2
        assert set(FILES) < set(publishing.there)

    def test_an_outage_that_lasts_is_told(self, publishing):
        publishing.hub.fail("POST", "/commit/", status=503, times=9)
        with pytest.raises(TransientStoreError, match=r"has failed for now \(HTTP 503\)"):
            publishing()
        assert publishing.num_commits == 1

    def test_what_was_uploaded_before_a_cut_is_not_sent_again(self, publishing):
        publishing.hub.fail("POST", "/commit/", status=500, times=3)
        with pytest.raises(TransientStoreError):
            publishing()
        assert len(publishing.hub.sent("^PUT")) == 3
        publishing.hub.forget()
        publishing()
        assert publishing.hub.sent("^PUT") == []
        assert set(FILES) < set(publishing.there)

    def test_a_stop_request_is_obeyed_between_portions(self, publishing, monkeypatch):
        monkeypatch.setattr("sdjob.store.hub_commit.PORTION_BYTES", 1)
        publishing.stop_at = 2
        with pytest.raises(StoppedError):
            publishing()
        assert publishing.num_commits == 1
        sent = len(publishing.hub.sent("^PUT"))
        assert sent == 1  # the card, and the first of the weights
        publishing.stop_at = None
        publishing.hub.forget()
        assert publishing().action == "published"
        assert len(publishing.hub.sent("^PUT")) == 3 - sent

    def test_small_files_share_a_portion(self, publishing):
        publishing()
        assert publishing.checks == 1
        assert sum(len(data) for data in FILES.values()) < PORTION_BYTES

    def test_a_read_only_token_is_told_before_anything_is_sent(self, publishing, desk):
        publishing.hub.new_repo("models", publishing.name, private=True)
        desk.log_in(desk.hub.read_token)
        with pytest.raises(ObjectDeniedError, match="may not write"):
            publishing()
        assert publishing.hub.sent("^PUT") == []

    def test_a_card_that_the_hub_does_not_take_is_told(self, publishing):
        (publishing.results / CARD_NAME).write_text("---\nlicense: none-such\n---\ntrained with sdjob")
        with pytest.raises(UsageError, match=r"does not take this: Invalid metadata in README\.md\. - \"license\""):
            publishing()
        assert publishing.num_commits == 1


class TestCard:
    def test_the_hubs_own_tools_read_it(self, publishing):
        publishing()
        data = ModelCard(publishing.there[CARD_NAME].decode()).data
        assert (data.base_model, data.library_name, data.pipeline_tag) == (
            "CompVis/stable-diffusion-v1-4",
            "diffusers",
            "text-to-image",
        )
        assert data.to_dict()["base_model_relation"] == "adapter"
        assert {"lora", "text-to-image", "stable-diffusion"} < set(data.tags)
        assert data.to_dict()["widget"][0] == {"text": "a cat", "output": {"url": "samples/0.png"}}
        assert "samples/0.png" in publishing.there

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_it_passes_the_hubs_judgement_without_a_remark(self, method):
        job = make_job(
            model={"source": "hf://models/CompVis/stable-diffusion-v1-4"},
            data={"source": "hf://datasets/lambdalabs/naruto-blip-captions"},
            train={"method": method, "steps": 1},
        )
        facts = CardFacts(step=1, digest="d", precision="no", num_pictures=1, sdjob_version="0.1.0", resume="exact")
        text = model_card(job, facts=facts, licence=Licence("other", name="my-terms"))
        assert card_problems(text) == ([], [])
        front = yaml.safe_load(text.split("---")[1])
        assert front["base_model_relation"] == ("adapter" if method == "lora" else "finetune")
        assert front["datasets"] == ["lambdalabs/naruto-blip-captions"]

    @pytest.mark.parametrize(
        ("licence", "expected"),
        [
            (Licence("MIT"), {"license": "mit"}),
            (Licence("Terms of Use, v2"), {"license": "other", "license_name": "terms-of-use-v2"}),
            (Licence("my-own", name="mine"), {"license": "other", "license_name": "mine"}),
        ],
    )
    def test_a_licence_that_the_hub_does_not_list_is_named_as_other(self, licence, expected):
        facts = CardFacts(step=1, digest="d", precision="no", num_pictures=1, sdjob_version="0.1.0", resume="exact")
        text = model_card(JOB, facts=facts, licence=licence)
        assert card_problems(text) == ([], [])
        front = yaml.safe_load(text.split("---")[1])
        assert {key: front[key] for key in front if key.startswith("license")} == expected


class TestWhatIsTold:
    def test_the_record_names_hub_places_in_full_with_their_commit_and_no_other(self, publishing):
        publishing()
        assert publishing.record["job"]["model"]["source"] == "hf://CompVis/stable-diffusion-v1-4"
        assert publishing.record["job"]["model"]["revision"] == "a" * 40
        assert publishing.record["job"]["data"]["source"] == "file://..."
        assert b"/secret" not in b"".join(publishing.there.values())

    def test_no_token_is_in_a_file_a_log_line_a_commit_or_an_address(self, publishing):
        publishing()
        publishing.hub.fail("POST", "/commit/", status=503, times=9)
        with pytest.raises(TransientStoreError) as failed:
            publishing(LATER)
        token = publishing.hub.write_token
        assert token not in publishing.stream.getvalue() + str(failed.value)
        assert token.encode() not in b"".join(publishing.there.values())
        assert all(token not in request.path for request in publishing.hub.requests)
        assert all(token not in commit.title for commit in publishing.hub.commits("models", publishing.name))
        assert '"event": "published"' in publishing.stream.getvalue()

    def test_the_commit_says_which_step_it_is(self, publishing):
        publishing()
        assert publishing.hub.commits("models", publishing.name)[0].title == "Step 10, trained with sdjob"

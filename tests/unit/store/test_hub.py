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
from sdjob.core.errors import DataError, StorageError
from sdjob.core.log import Log, secret_values
from sdjob.core.retry import Backoff
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectDeniedError, ObjectMissingError, TransientStoreError
from sdjob.store.hub import create_repository, resolve_commit
from sdjob.store.transfer import download_tree
from unit.store.hub_files import FILES, WEIGHTS, read_file, store_of


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

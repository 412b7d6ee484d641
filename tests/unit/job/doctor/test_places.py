"""A job's places, in memory and in folders: what is read, what is tried by writing, and that nothing stays behind."""

import io

import pytest

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.folders import MODEL_FILES, write_files
from fakes.memory_store import MemoryStore, fail
from fakes.runs import commit_log, play
from sdjob.core.errors import MissingError, UnavailableError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.job.doctor import sources as sources_module
from sdjob.job.doctor import targets as targets_module
from sdjob.job.doctor.checkup import Checkup
from sdjob.job.doctor.sources import Asker, source_checks
from sdjob.job.doctor.targets import target_checks
from sdjob.spec.load import parse_job
from sdjob.spec.places import Place
from sdjob.store.base import ObjectDeniedError, TransientStoreError
from sdjob.store.local import LocalStore

UNUSED = {"unet/model.bin": b"x" * 5000, "v1.ckpt": b"x" * 5000}
COMMIT = "a" * 40
QUIET = Log(mode="text", stream=io.StringIO(), secrets=())


class PlacedStore(MemoryStore):
    """Says what it is, and what doctor alone asks."""

    def __init__(self, objects=None, *, identity="a role", rules=()):
        super().__init__(objects)
        self.identity, self.rules = identity, list(rules)

    def credentials(self):
        if isinstance(self.identity, Exception):
            raise self.identity
        return self.identity

    def expiry_rules(self):
        if isinstance(self.rules, Exception):
            raise self.rules
        return self.rules


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    brief = Backoff(attempts=2, clock=FakeClock())
    monkeypatch.setattr(sources_module, "BRIEF", brief)
    monkeypatch.setattr(targets_module, "BRIEF", brief)


def job_of(**fields):
    return parse_job({**make_job().model_dump(mode="json"), **fields})


def asker_of(stores, *, resolve=None, environment=None):
    """`stores`: by the place's address; what is not among them is not to be asked."""

    def open_place(place):
        if isinstance(store := stores[place.uri.partition("@")[0]], Exception):
            raise store
        return store

    return Asker(open_place, resolve or (lambda place: place), environment or {})


def looked_at(checks):
    return list(Checkup(30.0).findings(checks))


def read(job, asker):
    return looked_at(source_checks(job, asker=asker))


def written(job, asker):
    return looked_at(target_checks(job, asker=asker, log=QUIET))


def told(findings, name):
    return [(finding.state, finding.what) for finding in findings if finding.check == name]


# ---- what is read ----------------------------------------------------------------------------------------------------------


class TestSources:
    @pytest.fixture
    def pictures(self, tmp_path):
        return write_files({"a.png": b"1" * 2**20, "a.txt": b"a cat"}, tmp_path / "pictures")

    def test_folders_of_this_machine(self, tmp_path, pictures):
        model = write_files({**MODEL_FILES, **UNUSED}, tmp_path / "model")
        found = read(job_of(model={"source": str(model)}, data={"source": str(pictures)}), self.local())
        assert told(found, "model.source") == [("ok", f"file://{model} can be listed: 9 of its 11 files are used, 0.0 MiB.")]
        assert told(found, "data.source") == [("ok", f"file://{pictures} can be listed: 2 files, 1.0 MiB.")]

    def local(self):
        return Asker(lambda place: LocalStore(place.path), lambda place: place, {})

    def test_what_is_not_there_is_66_and_the_others_are_looked_at(self, tmp_path, pictures):
        found = read(job_of(model={"source": str(tmp_path / "none")}, data={"source": str(pictures)}), self.local())
        assert (found[0].state, found[0].exit_code) == ("failed", 66)
        assert found[0].what == "is not there, or holds nothing."
        assert found[1].state == "ok"

    def test_an_empty_folder_is_66(self, tmp_path, pictures):
        (tmp_path / "empty").mkdir()
        found = read(job_of(model={"source": str(tmp_path / "empty")}, data={"source": str(pictures)}), self.local())
        assert (found[0].what, found[0].exit_code) == ("holds nothing.", 66)

    def test_a_model_without_safetensors_is_66(self, tmp_path, pictures):
        pickles = {name.replace(".safetensors", ".bin"): data for name, data in MODEL_FILES.items()}
        model = write_files(pickles, tmp_path / "model")
        found = read(job_of(model={"source": str(model)}, data={"source": str(pictures)}), self.local())
        assert found[0].exit_code == 66
        assert "holds no weights that end in .safetensors" in found[0].what

    def test_a_file_to_start_from(self, tmp_path, pictures):
        model = write_files(MODEL_FILES, tmp_path / "model")
        weights = tmp_path / "lora.safetensors"
        weights.write_bytes(b"x" * 2**20)
        train = {**make_job().model_dump(mode="json")["train"], "init_from": str(weights)}
        found = read(job_of(model={"source": str(model)}, data={"source": str(pictures)}, train=train), self.local())
        assert told(found, "train.init_from") == [("ok", f"file://{weights} can be listed: 1 file, 1.0 MiB.")]

    def test_a_bucket_says_who_asks_and_counts_what_would_be_fetched(self, pictures):
        stores = {"s3://bucket/sd": PlacedStore({**MODEL_FILES, **UNUSED}), f"file://{pictures}": LocalStore(pictures)}
        asker = asker_of(stores, environment={"AWS_ENDPOINT_URL_S3": "http://localhost:8333"})
        found = read(job_of(model={"source": "s3://bucket/sd"}, data={"source": str(pictures)}), asker)
        who, held = told(found, "model.source")
        assert who == ("ok", "memory://run as a role, at http://localhost:8333 (from AWS_ENDPOINT_URL_S3).")
        assert held[1].startswith("s3://bucket/sd can be listed: 9 of its 11 files are used")
        assert asker.to_fetch == {"model.source": sum(map(len, MODEL_FILES.values()))}

    def test_without_credentials_the_listing_decides(self, pictures):
        nobody = ObjectDeniedError("no credentials were found.", next_step="Set AWS_PROFILE.")
        public = PlacedStore(dict(MODEL_FILES), identity=nobody)
        local = {f"file://{pictures}": LocalStore(pictures)}
        job = job_of(model={"source": "s3://bucket/sd"}, data={"source": str(pictures)})
        assert [one.state for one in read(job, asker_of({"s3://bucket/sd": public, **local}))] == ["warning", "ok", "ok"]
        closed = PlacedStore(dict(MODEL_FILES), identity=nobody)
        closed.before.append(fail(ObjectDeniedError("Access Denied"), method="list", times=9))
        found = read(job, asker_of({"s3://bucket/sd": closed, **local}))
        assert [(one.state, one.exit_code) for one in found] == [("warning", 0), ("failed", 77), ("ok", 0)]

    def test_a_missing_sdk_is_said_once(self, pictures):
        missing = UnavailableError("s3:// places need the package boto3.", next_step="pip install 'sdjob[s3]'")
        stores = {"s3://bucket/sd": missing, f"file://{pictures}": LocalStore(pictures)}
        found = read(job_of(model={"source": "s3://bucket/sd"}, data={"source": str(pictures)}), asker_of(stores))
        assert [(one.state, one.exit_code) for one in found] == [("failed", 69), ("ok", 0)]

    def test_trouble_that_passes_is_tried_again_and_lasting_trouble_is_74(self, pictures):
        local = {f"file://{pictures}": LocalStore(pictures)}
        job = job_of(model={"source": "s3://bucket/sd"}, data={"source": str(pictures)})
        for times, code in ((1, 0), (2, 74)):
            store = PlacedStore(dict(MODEL_FILES))
            store.before.append(fail(TransientStoreError("503"), method="list", times=times))
            assert read(job, asker_of({"s3://bucket/sd": store, **local}))[1].exit_code == code

    def test_a_revision_becomes_a_commit(self, pictures):
        opened = []

        def resolve(place):
            return Place(place.scheme, place.name, revision=COMMIT, hub_kind=place.hub_kind)

        asker = asker_of(
            {"hf://models/a/b": PlacedStore(dict(MODEL_FILES)), f"file://{pictures}": LocalStore(pictures)}, resolve=resolve
        )
        open_place = asker.open
        asker = Asker(lambda place: (opened.append(place.revision), open_place(place))[1], resolve, {})
        found = read(job_of(model={"source": "hf://a/b"}, data={"source": str(pictures)}), asker)
        assert told(found, "model.source")[1] == ("ok", "main is commit aaaaaaaaaaaa.")
        assert COMMIT in opened  # what is listed is that commit

    def test_a_revision_that_is_not_there_is_66(self, pictures):
        def resolve(place):
            raise MissingError("the repository has no branch, tag or commit 'main'.", where=place.uri)

        asker = asker_of(
            {"hf://models/a/b": PlacedStore(dict(MODEL_FILES)), f"file://{pictures}": LocalStore(pictures)}, resolve=resolve
        )
        found = read(job_of(model={"source": "hf://a/b"}, data={"source": str(pictures)}), asker)
        assert [(one.check, one.exit_code) for one in found] == [("model.source", 0), ("model.source", 66), ("data.source", 0)]

    def test_a_huge_data_set_is_not_listed_to_its_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources_module, "MOST_LISTED", 3)
        model = write_files(MODEL_FILES, tmp_path / "model")
        asked = []

        class Endless(PlacedStore):
            def list(self, prefix):
                for info in MemoryStore({f"{number}.png": b"1" for number in range(10)}).list(prefix):
                    asked.append(info.key)
                    yield info

        asker = asker_of({"s3://bucket/data": Endless(), f"file://{model}": LocalStore(model)})
        found = read(job_of(model={"source": str(model)}, data={"source": "s3://bucket/data"}), asker)
        assert "at least 3 files, those alone have 0.0 MiB" in told(found, "data.source")[1][1]
        assert len(asked) == 3


# ---- where checkpoints go --------------------------------------------------------------------------------------------------


class TestCheckpoints:
    def look(self, store, **checkpoint):
        job = job_of(checkpoint={"to": "s3://bucket/run", **checkpoint})
        return told(written(job, asker_of({"s3://bucket/run": store})), "checkpoint.to")

    def test_written_honest_and_left_as_it_was(self):
        store = PlacedStore({"other": b"1"})
        assert self.look(store) == [
            ("ok", "memory://run as a role."),
            ("ok", "memory://run can be written, and refuses to create what exists."),
            ("ok", "s3://bucket/run holds no commit: the next attempt starts a new run."),
        ]
        assert store.objects == {"other": b"1"}
        assert [call.method for call in store.calls if call.key.startswith("probe/")] == ["create", "create", "read", "delete"]

    def test_a_dishonest_store_is_78(self):
        store = PlacedStore()
        store.honest = False
        job = job_of(checkpoint={"to": "s3://bucket/run"})
        found = [one for one in written(job, asker_of({"s3://bucket/run": store})) if one.state == "failed"]
        assert [(one.check, one.exit_code) for one in found] == [("checkpoint.to", 78)]
        assert "lets two writers create the same object" in found[0].what
        assert store.objects == {}

    def test_unless_the_job_accepts_it(self):
        store = PlacedStore()
        store.honest = False
        state, what = self.look(store, unsafe_single_writer=True)[1]
        assert (state, "lets two writers" in what) == ("warning", True)

    def test_one_that_cannot_be_written_is_77_and_its_rules_are_asked_all_the_same(self):
        store = PlacedStore(rules=["objects are deleted after 30 days."])
        store.before.append(fail(ObjectDeniedError("Access Denied"), method="create", times=9))
        found = written(job_of(checkpoint={"to": "s3://bucket/run"}), asker_of({"s3://bucket/run": store}))
        assert [(one.state, one.exit_code) for one in found] == [("ok", 0), ("failed", 77), ("ok", 0), ("warning", 0)]
        assert found[3].what == "memory://run: objects are deleted after 30 days."
        assert "Leave this prefix out" in found[3].next_step

    def test_rules_that_cannot_be_read_are_a_warning(self):
        store = PlacedStore()
        store.rules = ObjectDeniedError("may not read the bucket's lifecycle.")
        assert self.look(store)[-1] == ("warning", "may not read the bucket's lifecycle.")

    def test_no_credentials_is_77(self):
        nobody = ObjectDeniedError("no credentials were found.", next_step="Set AWS_PROFILE.")
        found = written(job_of(checkpoint={"to": "s3://bucket/run"}), asker_of({"s3://bucket/run": PlacedStore(identity=nobody)}))
        assert (found[0].state, found[0].exit_code, found[0].next_step) == ("failed", 77, "Set AWS_PROFILE.")

    def test_what_a_run_has(self, tmp_path):
        store = PlacedStore()
        log = commit_log(store, keep=3)
        play(log, tmp_path, acknowledged=[])
        before = dict(store.objects)
        assert self.look(store)[2] == ("ok", "s3://bucket/run holds a run that is done, at step 30.")
        assert store.objects == before

    def test_a_folder_that_is_not_there_is_not_made(self, tmp_path):
        job = job_of(checkpoint={"to": str(tmp_path / "a/b")})
        asker = Asker(lambda place: LocalStore(place.path), lambda place: place, {})
        assert {state for state, _ in told(written(job, asker), "checkpoint.to")} == {"ok"}
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_there_keeps_what_it_has(self, tmp_path):
        (tmp_path / "run/log").mkdir(parents=True)  # empty, as a killed attempt may leave it
        job = job_of(checkpoint={"to": str(tmp_path / "run")})
        written(job, Asker(lambda place: LocalStore(place.path), lambda place: place, {}))
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["run", "run/log"]


def test_encodings_that_jobs_share_go_where_can_be_written():
    store = PlacedStore()
    job = job_of(checkpoint={"to": "gs://bucket/run"}, run={"cache": "s3://bucket/shared"})
    found = written(job, asker_of({"gs://bucket/run": PlacedStore(), "s3://bucket/shared": store}))
    assert told(found, "run.cache") == [("ok", "memory://run as a role."), ("ok", "memory://run can be written.")]
    assert store.objects == {}


# ---- where results go ------------------------------------------------------------------------------------------------------


class TestPublished:
    def look(self, store, **target):
        job = job_of(checkpoint={"to": "gs://bucket/run"}, publish=[{"to": "s3://bucket/out", **target}])
        found = written(job, asker_of({"gs://bucket/run": PlacedStore(), "s3://bucket/out": store}))
        return [one for one in found if one.check == "publish.0.to"]

    def test_written_under_a_dot_name_and_left_as_it_was(self):
        store = PlacedStore()
        assert [(one.state, one.what) for one in self.look(store)] == [
            ("ok", "memory://run as a role."),
            ("ok", "memory://run can be written."),
            ("ok", "memory://run is empty."),
        ]
        assert store.objects == {}
        (written_key,) = {call.key for call in store.calls if call.method == "write"}
        assert written_key.startswith(".sdjob-doctor-")

    def test_one_that_cannot_be_written_is_77(self):
        store = PlacedStore()
        store.before.append(fail(ObjectDeniedError("Access Denied"), method="write", times=9))
        assert [(one.state, one.exit_code) for one in self.look(store)] == [("ok", 0), ("failed", 77), ("ok", 0)]

    def test_one_that_is_taken(self):
        record = b'{"digest": "d", "identity": "i", "step": 70, "files": {}}'
        store = PlacedStore({"sdjob.json": record, "x.safetensors": b"1"})
        *_, last = self.look(store)
        assert (last.state, last.what) == ("warning", "memory://run holds the result of a run, of step 70.")
        assert "replace: true" in last.next_step
        assert self.look(store, replace=True)[-1].state == "ok"
        *_, last = self.look(PlacedStore({"thesis.pdf": b"1", ".gitattributes": b""}))
        assert (last.state, last.what) == ("warning", "memory://run holds 1 file.")

    def test_rules_that_would_delete_the_result(self):
        assert self.look(PlacedStore(rules=["objects go after a day."]))[-1].state == "warning"

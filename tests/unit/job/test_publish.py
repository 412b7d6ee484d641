import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from sdjob.core.errors import StoppedError, StorageError, UsageError
from sdjob.core.log import Log
from sdjob.job.publish import publish
from sdjob.job.record import Publication, public_job
from sdjob.store.local import LocalStore

FILES = {"README.md": "a card, trained with sdjob", "weights.safetensors": "weights", "samples/0.png": "picture"}
FIRST = Publication(digest="d1", identity="run-1", step=10, job={"train": {"method": "lora"}}, versions={"sdjob": "0.1.0"})
LATER = replace(FIRST, digest="d2", step=20)
ANOTHER = replace(FIRST, digest="d3", identity="run-2")


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def there(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


class Publishing:
    """A folder of results and a target, as a test sees them."""

    def __init__(self, root: Path) -> None:
        self.results = write_files(root / "results", FILES)
        self.target = root / "target"
        self.store = LocalStore(self.target)
        self.check_stop = lambda: None

    def __call__(self, publication: Publication = FIRST, *, replace: bool = False, store: LocalStore | None = None):
        log = Log(mode="json", stream=io.StringIO())
        return publish(
            store or self.store,
            folder=self.results,
            publication=publication,
            replace=replace,
            private=True,
            check_stop=self.check_stop,
            log=log,
        )

    @property
    def record(self) -> dict:
        return json.loads((self.target / "sdjob.json").read_text(encoding="utf-8"))


@pytest.fixture
def publishing(tmp_path) -> Publishing:
    return Publishing(tmp_path)


class Diary(LocalStore):
    """Remembers what was written and deleted, in order; stops before the call of the given number."""

    def __init__(self, folder: Path, *, stop_before: int = 1000) -> None:
        super().__init__(folder)
        self.calls: list[str] = []
        self.stop_before = stop_before

    def note(self, call: str) -> None:
        if len(self.calls) >= self.stop_before:  # several files at a time may come here
            raise StorageError("cut off")
        self.calls.append(call)

    def write(self, key, data):
        self.note(f"write {key}")
        super().write(key, data)

    def write_file(self, key, path):
        self.note(f"write {key}")
        super().write_file(key, path)

    def delete(self, keys):
        keys = list(keys)
        self.note(f"delete {' '.join(keys)}")
        super().delete(keys)


def test_every_file_arrives_and_the_record_comes_last(publishing):
    diary = Diary(publishing.target)
    outcome = publishing(store=diary)
    assert outcome.action == "published"
    assert sorted(diary.calls[:3]) == ["write README.md", "write samples/0.png", "write weights.safetensors"]
    assert diary.calls[3:] == ["write sdjob.json"]
    assert there(publishing.target).items() >= FILES.items()


def test_the_record_says_what_was_published(publishing):
    publishing()
    assert publishing.record["digest"] == "d1"
    assert publishing.record["versions"] == {"sdjob": "0.1.0"}
    assert publishing.record["job"] == {"train": {"method": "lora"}}
    assert publishing.record["files"]["weights.safetensors"] == {
        "sha256": hashlib.sha256(b"weights").hexdigest(),
        "size_bytes": 7,
    }


def test_the_same_result_again_is_skipped(publishing):
    publishing()
    diary = Diary(publishing.target)
    assert publishing(store=diary).action == "skipped"
    assert diary.calls == []


@pytest.mark.parametrize("calls", range(4))
def test_a_publish_that_was_cut_off_anywhere_is_completed(publishing, calls):
    with pytest.raises(StorageError):
        publishing(store=Diary(publishing.target, stop_before=calls))
    assert publishing().action == ("completed" if calls else "published")
    assert there(publishing.target).items() >= FILES.items()
    assert publishing().action == "skipped"


def test_a_stop_request_is_obeyed_before_the_record(publishing):
    def stop() -> None:
        raise StoppedError("stopped")

    publishing.check_stop = stop
    with pytest.raises(StoppedError):
        publishing()
    assert "sdjob.json" not in there(publishing.target)
    publishing.check_stop = lambda: None
    publishing()
    assert there(publishing.target).items() >= FILES.items()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_file_that_was_lost_since_is_put_back(publishing, damage):
    publishing()
    lost = publishing.target / "weights.safetensors"
    if damage == "missing":
        lost.unlink()
    else:
        lost.write_bytes(b"wei")
    assert publishing().action == "completed"
    assert there(publishing.target).items() >= FILES.items()


def test_another_runs_result_is_refused_and_told_what_to_do(publishing):
    publishing(ANOTHER)
    before = there(publishing.target)
    with pytest.raises(UsageError, match=r"another run.*replace: true") as refused:
        publishing()
    assert refused.value.exit_code == 64
    assert there(publishing.target) == before


def test_a_later_step_of_the_same_run_takes_the_place_of_an_earlier_one(publishing):
    publishing()
    write_files(publishing.results, {"weights.safetensors": "better weights"})
    assert publishing(LATER).action == "updated"
    assert publishing.record["digest"] == "d2"
    assert there(publishing.target)["weights.safetensors"] == "better weights"


def test_an_earlier_step_does_not_take_the_place_of_a_later_one(publishing):
    publishing(LATER)
    with pytest.raises(UsageError, match="later step 20"):
        publishing(FIRST)
    assert publishing(FIRST, replace=True).action == "replaced"


def test_replacing_removes_what_the_other_run_left_and_nothing_else(publishing):
    write_files(publishing.results, {"samples/1.png": "second"})
    publishing(ANOTHER)
    write_files(publishing.target, {"notes.txt": "somebody's own"})
    (publishing.results / "samples/1.png").unlink()
    diary = Diary(publishing.target)
    outcome = publishing(replace=True, store=diary)
    assert (outcome.action, outcome.removed) == ("replaced", ("samples/1.png",))
    assert diary.calls[-2:] == ["delete samples/1.png", "write sdjob.json"]
    assert there(publishing.target)["notes.txt"] == "somebody's own"


@pytest.mark.parametrize("calls", range(5))
def test_replacing_that_was_cut_off_anywhere_ends_the_same(publishing, calls):
    write_files(publishing.results, {"old.txt": "old"})
    publishing(ANOTHER)
    (publishing.results / "old.txt").unlink()
    with pytest.raises(StorageError):
        publishing(replace=True, store=Diary(publishing.target, stop_before=calls))
    publishing(replace=True)
    assert there(publishing.target).keys() == {*FILES, "sdjob.json"}
    assert publishing.record["digest"] == "d1"


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"digest": "d1"}', '{"digest": "d1", "files": 3}'])
def test_a_record_that_cannot_be_read_is_somebody_elses(publishing, content):
    write_files(publishing.target, {"sdjob.json": content})
    with pytest.raises(UsageError, match="unreadable"):
        publishing()
    assert publishing(replace=True).action == "replaced"
    assert publishing.record["digest"] == "d1"


def test_files_of_somebody_else_are_refused_and_never_removed(publishing):
    write_files(publishing.target, {"thesis.tex": "years of work"})
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        publishing()
    assert there(publishing.target) == {"thesis.tex": "years of work"}
    publishing(replace=True)
    assert there(publishing.target)["thesis.tex"] == "years of work"


def test_a_card_that_a_person_wrote_is_not_overwritten_unasked(publishing):
    write_files(publishing.target, {"README.md": "my own words"})
    with pytest.raises(UsageError, match=r"README\.md"):
        publishing()
    publishing(replace=True)
    assert there(publishing.target)["README.md"] == FILES["README.md"]


def test_a_new_repositorys_dot_files_are_nobodys(publishing):
    write_files(publishing.target, {".gitattributes": "*.safetensors filter=lfs"})
    assert publishing().action == "published"


def test_a_record_among_the_results_is_not_published_as_a_file(publishing):
    write_files(publishing.results, {"sdjob.json": "stale"})
    publishing()
    assert "sdjob.json" not in publishing.record["files"]
    assert publishing.record["digest"] == "d1"


def test_the_public_job_names_hub_places_in_full_and_of_others_the_scheme():
    job = make_job(
        model={"source": "hf://owner/base", "vae": "s3://secret-bucket/vae"},
        data={"source": "/home/somebody/pictures", "prior": {"source": "gs://bucket/prior", "caption": "a dog"}},
        train={"init_from": "hf://owner/lora"},
        checkpoint={"to": "/home/somebody/runs"},
    )
    public = public_job(job)
    assert public.keys() == {"apiVersion", "model", "data", "train"}
    assert (public["model"]["source"], public["model"]["vae"]) == ("hf://owner/base", "s3://...")
    assert (public["data"]["source"], public["data"]["prior"]["source"]) == ("file://...", "gs://...")
    assert public["train"]["init_from"] == "hf://owner/lora"
    assert "somebody" not in json.dumps(public)

"""Bad weather at the end of a run: the commits stand, and the same command again publishes them. No training is done again."""

import json
from typing import Any

import pytest

from fakes.faulty_proxy import Fault, FaultyProxy
from fakes.hub import Hub
from fakes.running import Job, Workshop, tree
from fakes.weather import Weather, inside_mounts, small_disk

TARGET = "me/tiny-lora"
LETTER = b"somebody's letter"
PAGE_BYTES = 4096  # of a disk in memory
# Several files go at a time, and any of them may be the first that fails.
ANY_FILE = dict.fromkeys(
    ("README.md", "pytorch_lora_weights.safetensors", "tiny.kohya.safetensors", "samples/00-00.png"), "A-FILE"
)


@pytest.fixture
def done(workshop: Workshop) -> Job:
    """One training for all of these."""
    return workshop.finished("weather", train__steps=2)


@pytest.fixture
def at_hub(hub: Hub, weather: Weather) -> Hub:
    hub.forget()
    hub.repositories.clear()
    weather.hub(hub, token=hub.write_token)
    return hub


def of_another_run(done: Job) -> dict[str, bytes]:
    files = tree(done.out)
    record = json.loads(files["sdjob.json"])
    record |= {"identity": "another run", "digest": "0" * 64}
    return {**files, "sdjob.json": json.dumps(record).encode()}


def result(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith((".safetensors", ".png"))}


def publishes(weather: Weather, name: str, *words: str, done: Job, **how: Any) -> None:
    """To the end this time, without a step of training."""
    told = weather.run(*words, **how)
    weather.says(name, told, code=0)
    assert "training" not in told.stderr


class TestFolders:
    def test_another_runs_result_is_there(self, done, weather):
        weather.take_over(done, publish=[{"to": "shelf"}])
        for name, data in of_another_run(done).items():
            (weather.folder / "shelf" / name).parent.mkdir(parents=True, exist_ok=True)
            (weather.folder / "shelf" / name).write_bytes(data)
        weather.says("publish-another-run", weather.run(), code=64)
        del weather.places["folder"]  # what follows is asked for
        publishes(weather, "publish-another-run-replaced", "--set=publish.0.replace=true", done=done)
        assert result(tree(weather.folder / "shelf")) == result(tree(done.out))

    def test_somebodys_files_are_there(self, done, weather):
        weather.take_over(done, publish=[{"to": "shelf"}])
        (weather.folder / "shelf").mkdir()
        (weather.folder / "shelf/letter.txt").write_bytes(LETTER)
        weather.says("publish-foreign-files", weather.run(), code=64)
        publishes(weather, "publish-foreign-files-beside", "--set=publish.0.replace=true", done=done)

    def test_the_disk_there_is_full(self, done, weather):
        weather.take_over(done, publish=[{"to": "shelf/published"}])
        (weather.folder / "shelf").mkdir()
        weather.words |= ANY_FILE
        inside = inside_mounts(small_disk(weather.folder / "shelf", size_kib=16))
        weather.says("publish-disk-full", weather.run(inside=inside), code=74)
        publishes(weather, "publish-disk-full-mended", done=done)

    def test_scratch_is_full_when_the_folder_is_built(self, done, weather):
        weather.take_over(done, publish=[{"to": "shelf"}])
        blobs = [data for name, data in tree(done.to).items() if name.startswith("blob/")]
        size_kib = sum(len(data) // PAGE_BYTES + 1 for data in blobs) * PAGE_BYTES // 1024 + 16
        (weather.folder / "scratch").mkdir()
        inside = inside_mounts(small_disk(weather.folder / "scratch", size_kib=size_kib))
        weather.says("publish-scratch-full", weather.run(inside=inside), code=74)


class TestBuckets:
    def test_an_identity_that_may_only_read(self, done, seaweed, weather):
        bucket = weather.s3(seaweed)
        weather.take_over(done, publish=[{"to": f"s3://{bucket}/tiny"}])
        weather.words |= ANY_FILE
        weather.reach(seaweed.reader.environment)
        weather.says("publish-s3-reader", weather.run(), code=77)
        weather.reach(seaweed.environment)
        publishes(weather, "publish-s3-reader-mended", done=done)

    def test_cut_off_and_run_again(self, done, seaweed, weather):
        bucket = weather.s3(seaweed)
        weather.take_over(done, publish=[{"to": f"s3://{bucket}/tiny"}])
        with FaultyProxy(seaweed.endpoint) as proxy:
            proxy.faults.append(Fault("status", method="PUT", path="sdjob.json", status=503, times=1000))
            weather.reach({"AWS_ENDPOINT_URL_S3": proxy.endpoint})
            weather.says("publish-s3-cut-off", weather.run(hurried=True), code=74)
        weather.reach(seaweed.environment)
        publishes(weather, "publish-s3-cut-off-mended", done=done)
        files = {name.removeprefix("tiny/"): data for name, data in weather.places[f"s3://{bucket}"]().items()}
        assert result(files) == result(tree(done.out))


class TestHub:
    def test_it_fails_for_a_moment(self, done, at_hub, weather):
        at_hub.fail("POST", "/commit/", status=500)
        weather.take_over(done, publish=[{"to": f"hf://{TARGET}"}])
        publishes(weather, "publish-hub-500", done=done)
        assert len(at_hub.sent("POST .*/commit/")) == 2
        assert result(at_hub.files("models", TARGET)) == result(tree(done.out))

    def test_cut_off_and_run_again(self, done, at_hub, weather):
        at_hub.fail("PUT", "/lfs/", status=503, times=1000, skip=1)
        weather.take_over(done, publish=[{"to": f"hf://{TARGET}"}])
        weather.says("publish-hub-cut-off", weather.run(hurried=True), code=74)
        at_hub.forget()
        publishes(weather, "publish-hub-cut-off-mended", done=done)
        assert result(at_hub.files("models", TARGET)) == result(tree(done.out))

    def test_somebody_else_commits_in_between(self, done, at_hub, weather):
        repository = at_hub.new_repo("models", TARGET)
        theirs = {".gitattributes": b"*.safetensors filter=lfs\n"}
        weather.take_over(done, publish=[{"to": f"hf://{TARGET}", "private": False}])
        with FaultyProxy(at_hub.endpoint) as proxy:
            meanwhile = Fault(
                "slow", method="POST", path="/commit/", then=lambda: repository.commit(theirs, title="theirs") and None
            )
            proxy.faults.append(meanwhile)
            weather.reach({"HF_ENDPOINT": proxy.endpoint})
            weather.says("publish-hub-in-between", weather.run(), code=74)
        weather.reach({"HF_ENDPOINT": at_hub.endpoint})
        publishes(weather, "publish-hub-in-between-mended", done=done)
        assert [commit.title for commit in at_hub.commits("models", TARGET)][1:] == ["theirs", "initial commit"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("refused", "Forbidden: your role does not permit this"),
            ("full", "Private repository storage limit reached, please upgrade your plan"),
        ],
    )
    def test_it_takes_nothing(self, name, message, done, at_hub, weather):
        at_hub.fail("POST", "/commit/", status=403, message=message, times=1000)
        weather.take_over(done, publish=[{"to": f"hf://{TARGET}"}])
        weather.says(f"publish-hub-{name}", weather.run(hurried=True), code={"refused": 77, "full": 74}[name])

    def test_another_runs_result_is_there(self, done, at_hub, weather):
        at_hub.new_repo("models", TARGET, of_another_run(done))
        weather.take_over(done, publish=[{"to": f"hf://{TARGET}", "private": False}])
        weather.says("publish-hub-another-run", weather.run(), code=64)


class TestReading:
    """What a finished run's place is asked for."""

    def test_a_step_that_it_does_not_have(self, done, weather):
        weather.take_over(done)
        told = weather.sdjob("export", "run", "--step", "7", "--to", "out")
        weather.says("export-step-missing", told, code=66)

    def test_a_folder_that_is_not_empty(self, done, weather):
        weather.take_over(done)
        (weather.folder / "out").mkdir()
        (weather.folder / "out/letter.txt").write_bytes(LETTER)
        weather.says("export-folder-occupied", weather.sdjob("export", "run", "--to", "out"), code=64)

    @pytest.mark.parametrize("verb", ["export", "verify"])
    def test_a_checkpoint_that_is_damaged(self, verb, done, weather):
        weather.take_over(done)
        for blob in (weather.folder / "run/blob").rglob("*"):
            if blob.is_file() and blob.stat().st_size > 5000:
                blob.write_bytes(blob.read_bytes()[:-1])
        words = ("export", "run", "--to", "out") if verb == "export" else ("checkpoints", "verify", "run")
        told = weather.sdjob(*words)
        weather.says(f"checkpoint-damaged-{verb}", told, code=78, stdout=told.stdout)
        assert not (weather.folder / "out").exists()

    def test_a_log_with_a_gap(self, done, weather):
        weather.take_over(done)
        (weather.folder / "run/log/000000000001.json").unlink()
        weather.says("log-gap", weather.run(), code=78)

    def test_another_jobs_place(self, done, weather):
        """A slip in checkpoint.to writes nothing there."""
        weather.take_over(done, train__seed=7)
        weather.says("place-of-another-job", weather.run(), code=64)

"""Weights & Biases' real library and its service process: offline into files, online against a service of our own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from fakes.running import wait_until
from fakes.tracked import WandbFile, png_bytes, wandb_file_of
from fakes.wandb_service import KEY, WandbService
from sdjob.core.retry import Backoff
from sdjob.store.patient import PatientStore
from sdjob.track.row import Final, Picture, Row
from sdjob.track.tracker import TrackerLostError
from sdjob.track.wandb_tracker import UPLOAD_EVERY_S, WandbRun, WandbTracker, needs, start_child, wandb_run_id

RUN_ID = "0123456789abcdef"
FOLDER = f"wandb/offline-run-20231114_221320-{RUN_ID}/"
FILE = f"{FOLDER}run-{RUN_ID}.wandb"
KEY_OF_PICTURE = "attempts/0001/samples/00000002/00-00.png"


def row(step: int, *pictures: Picture) -> Row:
    return Row(step, 1_700_000_000.0 + step, {"train/loss": 1.0 / step}, pictures)


class Attempt:
    """One attempt's tracker, with a folder of its own."""

    def __init__(self, store: MemoryStore, folder: Path, *, mode="offline", environment=None, is_owner=lambda: True) -> None:
        self.clock = FakeClock()
        self.urls: list[str] = []
        run = WandbRun(RUN_ID, "tiny", "sdjob", {"train": {"steps": 8}}, mode, began_s=1_700_000_000.0)
        self.child = start_child(folder, mode=mode, environment={**os.environ, **(environment or {})})
        patient = PatientStore(store, backoff=Backoff(clock=self.clock))
        self.tracker = WandbTracker(run, self.child, patient, folder, self.clock, is_owner, self.urls.append)

    def tell(self, *rows: Row) -> int:
        through = self.tracker.open()
        for each in rows:
            if each.step > through:
                self.tracker.add(each)
        return through


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore({KEY_OF_PICTURE: png_bytes()})


@pytest.fixture
def attempts(store, tmp_path) -> Iterator:
    made: list[Attempt] = []

    def make(**settings) -> Attempt:
        made.append(Attempt(settings.pop("store", store), tmp_path / f"scratch-{len(made)}", **settings))
        return made[-1]

    yield make
    for each in made:
        each.tracker.abort()
        each.child.channel.close()


def kept(store: MemoryStore, tmp_path: Path) -> WandbFile:
    file = tmp_path / "read.wandb"
    file.write_bytes(store.objects[FILE])
    return wandb_file_of(file)


def steps_of(file: WandbFile) -> list[int]:
    return [row["_step"] for row in file.rows]


def is_gone(child) -> bool:
    """With the service that it had started."""
    mine = f"pid\0{child.process.pid}\0".encode()
    return not any(mine in command_of(path) for path in Path("/proc").glob("[0-9]*"))


def command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


class TestOffline:
    def test_a_run_lies_at_its_place_as_one_folder(self, store, attempts, tmp_path):
        attempt = attempts()
        attempt.tell(row(1), row(2, Picture(KEY_OF_PICTURE, "00-00", "a red circle")), row(3))
        attempt.tracker.close(Final(3, "d1ge57"))
        file = kept(store, tmp_path)
        assert file.series("train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert file.series("_timestamp") == [(step, 1_700_000_000.0 + step) for step in (1, 2, 3)]
        [(step, [name])] = file.series("validation/filenames")
        assert (step, file.series("validation/captions")) == (2, [(2, ["a red circle"])])
        assert store.objects[f"{FOLDER}files/{name}"] == png_bytes()
        assert (file.run_id, file.host, file.exit_code) == (RUN_ID, "", 0)
        assert file.config["train"] == {"steps": 8}
        assert (file.summary["digest"], file.summary["step"]) == ("d1ge57", 3)
        wait_until(lambda: is_gone(attempt.child), what="the end of the service")

    def test_the_next_attempt_writes_it_whole_again(self, store, attempts, tmp_path):
        first = attempts()
        first.tell(*(row(step) for step in range(1, 6)))
        first.tracker.close(None)
        assert kept(store, tmp_path).exit_code != 0
        store.objects[FILE + ".synced"] = b""
        second = attempts()
        assert second.tell(*(row(step) for step in range(1, 9))) == 0
        second.tracker.close(Final(8, "d1ge57"))
        assert steps_of(kept(store, tmp_path)) == list(range(1, 9))
        assert [key for key in store.objects if key.startswith("wandb/")] == [FILE]

    def test_a_killed_attempt_leaves_what_was_committed(self, store, attempts, tmp_path):
        attempt = attempts()
        attempt.tell(row(1), row(2))
        attempt.tracker.committed()
        attempt.tracker.add(row(3))
        attempt.tracker.committed()  # too soon for another upload
        attempt.tracker.abort()
        assert steps_of(kept(store, tmp_path)) == [1, 2]
        wait_until(lambda: is_gone(attempt.child), what="the end of the service")

    def test_it_is_uploaded_again_after_a_while(self, store, attempts, tmp_path):
        attempt = attempts()
        attempt.tell(row(1))
        attempt.tracker.committed()
        attempt.tracker.add(row(2))
        attempt.clock.advance(UPLOAD_EVERY_S)
        attempt.tracker.committed()
        assert steps_of(kept(store, tmp_path)) == [1, 2]

    def test_a_resumed_run_does_not_replace_more_by_less(self, store, attempts, tmp_path):
        first = attempts()
        first.tell(*(row(step) for step in range(1, 300)))
        first.tracker.close(None)
        second = attempts()
        second.tell(row(1), row(2))
        second.tracker.committed()
        assert len(steps_of(kept(store, tmp_path))) == 299

    def test_an_attempt_that_lost_the_run_does_not_take_the_new_ones_place(self, store, attempts):
        attempt = attempts(is_owner=lambda: False)
        attempt.tell(row(1))
        with pytest.raises(TrackerLostError, match="another attempt"):
            attempt.tracker.close(None)
        assert FILE not in store.objects

    def test_a_child_that_dies_is_noticed(self, attempts):
        attempt = attempts()
        attempt.tell(row(1))
        attempt.child.kill()
        with pytest.raises(TrackerLostError):
            attempt.tracker.close(None)


class TestOnline:
    @pytest.fixture
    def service(self) -> Iterator[WandbService]:
        with WandbService() as service:
            yield service

    def test_a_run_goes_on_where_the_service_left_off(self, service, attempts):
        first = attempts(mode="online", environment=service.environment)
        assert first.tell(row(1), row(2, Picture(KEY_OF_PICTURE, "00-00", "a red circle")), row(3)) == 0
        first.tracker.close(None)
        second = attempts(mode="online", environment=service.environment)
        assert second.tell(*(row(step) for step in range(1, 9))) == 3
        second.tracker.close(Final(8, "d1ge57"))
        served = service.runs[RUN_ID]
        assert [(each["_step"], each["train/loss"]) for each in served.rows] == [(step, 1.0 / step) for step in range(1, 9)]
        assert served.summary["digest"] == "d1ge57"
        assert served.config["train"] == {"steps": 8}
        assert not served.host
        assert png_bytes() in served.files.values()
        assert first.urls == second.urls != []

    def test_after_a_kill_too(self, service, attempts):
        first = attempts(mode="online", environment=service.environment)
        first.tell(*(row(step) for step in range(1, 6)))
        wait_until(lambda: RUN_ID in service.runs and bool(service.runs[RUN_ID].rows), what="rows at the service")
        first.tracker.abort()
        wait_until(lambda: is_gone(first.child), what="the end of the service's process")
        second = attempts(mode="online", environment=service.environment)
        assert second.tell(*(row(step) for step in range(1, 9))) > 0
        second.tracker.close(Final(8, "d1ge57"))
        assert [each["_step"] for each in service.runs[RUN_ID].rows] == list(range(1, 9))

    def test_a_key_that_is_wrong_is_said_and_not_shown(self, service, attempts):
        wrong = KEY[::-1]
        attempt = attempts(mode="online", environment={**service.environment, "WANDB_API_KEY": wrong})
        with pytest.raises(TrackerLostError) as told:
            attempt.tell(row(1))
        assert wrong not in str(told.value)
        assert str(told.value)


class TestChild:
    def test_its_environment_has_no_secret_but_its_own(self):
        assert needs("PATH", mode="online")
        assert needs("WANDB_API_KEY", mode="online")
        assert not needs("WANDB_API_KEY", mode="offline")
        assert not needs("HF_TOKEN", mode="online")
        assert not needs("WANDB_RUN_ID", mode="online")

    def test_the_runs_name_is_stable_and_plain(self):
        assert wandb_run_id("AB12".lower() * 16) == "ab12" * 4

"""One job over distant places: model from the Hub, pictures and checkpoints in a bucket, results in the bucket and on the Hub.

Killed, and resumed on a machine whose scratch is empty; what it publishes is byte for byte what the run on folders publishes.
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.running import Ended, Job, Running, Workshop, tree, write_job
from sdjob.ckpt.engine import CommitLog
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.ledger.read import read_ledger
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectStore
from sdjob.store.open import open_store

MODEL, RESULT = "owner/tiny", "me/tiny-lora"
STEPS, SAVE_EVERY = 8, 2


@dataclass(frozen=True)
class Bucket:
    """A bucket that this process and its children reach."""

    uri: str

    def store(self, prefix: str) -> ObjectStore:
        return open_store(parse_place(f"{self.uri}/{prefix}", base=Path("/")))

    def put(self, prefix: str, *, folder: Path) -> None:
        store = self.store(prefix)
        for name in tree(folder):
            store.write_file(name, folder / name)

    def files(self, prefix: str) -> dict[str, bytes]:
        store = self.store(prefix)
        return {info.key: store.read(info.key) for info in store.list("")}


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    server = request.getfixturevalue({"s3": "seaweed", "gs": "gcs_server"}[request.param])
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(f"{request.param}://{server.new_bucket()}")


@pytest.fixture
def on_hub(hub, monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> Iterator[Any]:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    forget_results(hub)  # other tests publish there too
    hub.new_repo("models", MODEL, tree(workshop.model()))
    yield hub
    forget_results(hub)


def forget_results(hub: Any) -> None:
    for repository in [key for key in hub.repositories if key[1] == RESULT]:
        del hub.repositories[repository]
    hub.forget()


def distant_job(folder: Path, *, bucket: Bucket, **fields: Any) -> Job:
    places: dict[str, Any] = {
        "model__source": f"hf://{MODEL}",
        "data__source": f"{bucket.uri}/pictures",
        "checkpoint__to": f"{bucket.uri}/runs/tiny",
        "publish": [{"to": f"hf://{RESULT}"}, {"to": f"{bucket.uri}/published"}],
    }
    return write_job(folder, model=Path(), pictures=Path(), **{**places, **fields})


def start(job: Job, *, machine: int) -> Running:
    """Each machine has a scratch of its own, empty at first."""
    return job.start(environment={"SDJOB_SCRATCH": str(job.folder / f"machine-{machine}")})


def killed_at(moment: str, job: Job, *, machine: int, **fields: Any) -> Ended:
    running = start(job, machine=machine)
    running.wait_for(moment, **fields)
    ended = running.kill()
    assert ended.code == -signal.SIGKILL, ended.output
    return ended


def weights_and_pictures(files: dict[str, bytes]) -> dict[str, bytes]:
    """The card and sdjob.json name the model's place, which is another one here."""
    return {name: data for name, data in files.items() if name.endswith((".safetensors", ".png"))}


def losses(store: ObjectStore) -> dict[int, float]:
    return {record["step"]: record["loss"] for ledger in read_ledger(store) for record in ledger.metrics}


class TestDistantPlaces:
    def test_killed_twice_it_publishes_the_bytes_of_the_run_on_folders(self, bucket, on_hub, workshop, tmp_path):
        plain = workshop.finished("on-folders", train__steps=STEPS)
        bucket.put("pictures", folder=workshop.pictures)
        job = distant_job(tmp_path / "job", bucket=bucket, train__steps=STEPS)

        killed = killed_at("commit", job, machine=1, step=SAVE_EVERY)
        again = killed_at("commit", job, machine=2, step=lambda step: step > SAVE_EVERY)
        assert again.start_step >= SAVE_EVERY
        ended = start(job, machine=3).end()
        assert ended.code == 0, ended.output
        assert ended.start_step > SAVE_EVERY

        published = bucket.files("published")
        assert weights_and_pictures(published) == weights_and_pictures(plain.published())
        on_the_hub = on_hub.files("models", RESULT)
        assert {name: on_the_hub[name] for name in published} == published
        run = bucket.store("runs/tiny")
        assert self.digest(run) == plain.done_digest() == json.loads(published["sdjob.json"])["digest"]
        assert losses(run) == pytest.approx(plain.losses(), rel=0, abs=0)
        self.no_secret(on_hub, bucket, job, outputs=[killed, again, ended])

    def digest(self, store: ObjectStore) -> str:
        log = CommitLog(store, clock=SystemClock(), log=Log(mode="text", secrets=()))
        done = log.replay().done
        assert done is not None
        return done.digest

    def no_secret(self, hub, bucket: Bucket, job: Job, *, outputs: list[Ended]) -> None:
        """The keys that the children had in their environment are in nothing that they wrote or said."""
        import os

        names = ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN")
        secrets = [os.environ[name].encode() for name in names if name in os.environ]
        places = {"bucket": bucket.files(""), "machines": tree(job.folder), "hub": hub.files("models", RESULT)}
        written = {f"{place}/{name}": data for place, files in places.items() for name, data in files.items()}
        written |= {f"output {number}": ended.output.encode() for number, ended in enumerate(outputs)}
        assert len(written) > 30
        assert [name for name, data in written.items() if any(secret in data for secret in secrets)] == []

    def test_a_finished_run_is_left_alone(self, bucket, on_hub, workshop, tmp_path):
        bucket.put("pictures", folder=workshop.pictures)
        job = distant_job(tmp_path / "job", bucket=bucket, train__steps=2)
        assert start(job, machine=1).end().code == 0
        before, commits = bucket.files(""), on_hub.commits("models", RESULT)
        ended = start(job, machine=2).end()
        assert ended.code == 0
        assert not ended.of("train")
        assert bucket.files("") == before
        assert on_hub.commits("models", RESULT) == commits

    def test_the_branch_that_moves_on_changes_nothing(self, bucket, on_hub, workshop, tmp_path):
        """The first attempt's commit is the run's, on every machine."""
        bucket.put("pictures", folder=workshop.pictures)
        job = distant_job(tmp_path / "job", bucket=bucket, train__steps=4)
        first = on_hub.commits("models", MODEL)[0].oid
        killed_at("commit", job, machine=1, step=SAVE_EVERY)
        repository = on_hub.repository("models", MODEL)
        repository.commit({"unet/diffusion_pytorch_model.safetensors": b"another model"}, title="retrained")
        ended = start(job, machine=2).end()
        assert ended.code == 0, ended.output
        assert f"revision: {first}" in bucket.files("runs/tiny")["job.yaml"].decode()

"""Trackers beside real runs: the curves of a run that was killed and went on elsewhere are those of one that never was."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fakes.running import Ended, Job, Workshop, wait_until
from fakes.tracked import Board, WandbFile, board_of, wandb_file_of

STEPS, SAVE_EVERY, DRAW_EVERY = 20, 8, 6
DRAWN = [6, 12, 18, 20]
FIELDS: dict[str, Any] = {
    "train__steps": STEPS,
    "checkpoint__every_steps": SAVE_EVERY,
    "validation__every_steps": DRAW_EVERY,
}
BOTH = "track=[tensorboard, wandb]"
SECRETS = {
    "HF_TOKEN": "hf_planted0token0planted0token",
    "WANDB_API_KEY": "planted0wandb0key0planted0wandb0key0plan",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/key/of/forty/characters/x",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    return {**SECRETS, "HOME": str(home), "WANDB_MODE": "offline"}


@pytest.fixture
def straight(workshop: Workshop) -> Job:
    """Never interrupted, without a tracker."""
    return workshop.finished("tracked", **FIELDS)


def board(job: Job) -> Board:
    return board_of(job.to / "tensorboard")


def wandb_file(job: Job) -> WandbFile:
    [file] = job.to.glob("wandb/*/*.wandb")
    return wandb_file_of(file)


def check_curves(job: Job, straight: Job) -> None:
    """Each step once, with its values; each picture once, with its prompt; the end, and the job."""
    expected = {record["step"]: record for ledger in straight.ledgers() for record in ledger.metrics}
    shown, sent = board(job), wandb_file(job)
    for name in ("loss", "grad_norm", "learning_rate"):
        curve = [(step, pytest.approx(expected[step][name])) for step in range(1, STEPS + 1)]
        assert shown.scalars[f"train/{name}"] == curve
        assert sent.series(f"train/{name}") == curve
    pictures = {int(name.split("/")[2]): data for name, data in straight.samples().items()}
    assert shown.images["validation/00-00"] == [(step, pictures[step]) for step in DRAWN]
    assert shown.descriptions == {"validation/00-00": "a red circle"}
    assert sent.series("validation/captions") == [(step, ["a red circle"]) for step in DRAWN]
    for step, [name] in sent.series("validation/filenames"):
        [file] = job.to.glob(f"wandb/*/files/{name}")
        assert file.read_bytes() == pictures[step]
    assert shown.texts["result"] == [(STEPS, f"step {STEPS}, digest `{straight.done_digest()}`")]
    assert sent.summary["digest"] == straight.done_digest()
    assert len(shown.texts["job"]) == 1
    assert sent.config["train"]["steps"] == STEPS
    assert sent.exit_code == 0


def check_nothing_leaked(job: Job, home: Path, *attempts: Ended) -> None:
    files = [path for path in (*job.folder.rglob("*"), *home.rglob("*")) if path.is_file()]
    for secret in SECRETS.values():
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert all(secret not in attempt.output for attempt in attempts)
    assert {path.name for path in job.folder.iterdir()} == {"job.yaml", "run", "published", "scratch"}
    assert not [path for path in home.rglob("*") if "wandb" in path.name]
    assert wandb_file(job).host == ""
    assert not [*job.to.rglob("wandb-metadata.json"), *job.to.rglob("requirements.txt")]


def processes_of(job: Job) -> list[int]:
    """All that were given this job's scratch folder."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if str(job.scratch).encode() in environment_of(path)]


def environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def wait_for_all_gone(job: Job) -> None:
    wait_until(lambda: not processes_of(job), what="the end of every process")


def test_a_run_that_was_killed_elsewhere_goes_on_without_gaps_or_doubles(workshop, straight, environment, home, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS)
    first = job.start(BOTH, environment=environment)
    first.wait_for("step")
    [trainer] = first.trainers()
    os.kill(trainer, signal.SIGSTOP)
    first_file = job.to / "tensorboard" / "events.out.tfevents.0000000001.sdjob"
    wait_until(first_file.exists, what="what TensorBoard shows of steps that no commit has")
    killed = first.kill()
    assert not job.committed_steps() or max(job.committed_steps()) < board(job).scalars["train/loss"][-1][0]
    wait_for_all_gone(job)

    shutil.rmtree(job.scratch)
    second = job.start("track=[]", environment=environment)
    second.wait_for("commit")
    second.kill()
    assert max(job.committed_steps()) < STEPS

    shutil.rmtree(job.scratch)
    ended = job.run(BOTH, environment=environment)
    assert ended.code == 0, ended.output
    assert ended.start_step in job.committed_steps()
    assert not ended.of("track-dropped")
    wait_for_all_gone(job)
    check_curves(job, straight)
    check_nothing_leaked(job, home, killed, ended)
    assert job.done_digest() == straight.done_digest()


def test_a_run_that_is_stopped_has_shown_all_that_it_trained(workshop, straight, environment, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS)
    running = job.start(BOTH, environment=environment)
    running.wait_for("commit")
    running.signal(signal.SIGTERM)
    stopped = running.end()
    assert stopped.code == 75, stopped.output
    assert not stopped.of("track-dropped")
    committed = max(job.committed_steps())
    assert committed < STEPS
    for curve in (board(job).scalars["train/loss"], wandb_file(job).series("train/loss")):
        assert [step for step, _ in curve] == list(range(1, committed + 1))
    assert wandb_file(job).exit_code != 0
    wait_for_all_gone(job)
    assert job.run(BOTH, environment=environment).code == 0
    check_curves(job, straight)


def test_a_missing_key_is_told_before_anything_is_claimed(workshop, environment, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS)
    ended = job.run(BOTH, environment={**environment, "WANDB_MODE": "online", "WANDB_API_KEY": ""})
    assert ended.code == 77
    for words in ("WANDB_API_KEY", "WANDB_MODE=offline"):
        assert words in ended.error
    assert not (job.to / "log").exists()

"""Stop requests in every phase of a run: exit 75, a whole log, and a run that goes on to the uninterrupted result."""

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from fakes.processes import is_alive
from fakes.running import Job, Running, Workshop, wait_until

STEPS = 24  # enough that a stop request comes long before the last one
FIELDS = {"train__steps": STEPS, "checkpoint__every_steps": 5}
ASIDE = 8  # places to publish to beside the job's own


@pytest.fixture
def job(workshop: Workshop, tmp_path: Path) -> Job:
    pictures = tmp_path / "pictures"
    shutil.copytree(workshop.pictures, pictures)
    return workshop.job(tmp_path / "job", pictures=pictures, **FIELDS)


def check_goes_on(job: Job, workshop: Workshop) -> None:
    """A run again ends as if nothing had happened."""
    straight = workshop.finished("stop", **FIELDS)
    again = job.run()
    assert again.code == 0, again.output
    assert job.done_digest() == straight.done_digest()
    assert job.published() == straight.published()
    job.verified()


def check_gone(pids: Sequence[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), what=f"the end of processes {pids}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_a_stop_before_the_job_file_is_read(job, number):
    job.file.unlink()
    os.mkfifo(job.file)
    running = job.start()
    with job.file.open("wb"):  # opens when it is read
        wchan = Path(f"/proc/{running.pid}/wchan")
        wait_until(lambda: "pipe_read" in wchan.read_text(), what="a read that waits")
        running.signal(number)
        ended = running.end()
    assert ended.code == 75, ended.output
    assert ended.one("error")["exit_code"] == 75


# ---- one signal in each phase ----------------------------------------------------------------------------------------------


def stop_in_scan(job: Job, number: int) -> Running:
    """One picture is a pipe: whoever reads it waits until it is written, here after the signal."""
    picture = sorted((job.folder.parent / "pictures").glob("*.png"))[-1]
    data = picture.read_bytes()
    picture.unlink()
    os.mkfifo(picture)
    running = job.start()
    with picture.open("wb") as file:  # opens when it is read
        running.signal(number)
        file.write(data)
    picture.unlink()
    picture.write_bytes(data)
    return running


def stop_in_start_up(job: Job, number: int) -> Running:
    running = job.start()
    running.trainers()
    running.signal(number)
    return running


def stop_in_training(job: Job, number: int) -> Running:
    running = job.start()
    running.wait_for("step")
    running.signal(number)
    return running


def stop_in_save(job: Job, number: int) -> Running:
    before = set(job.to.glob("blob/*/*"))
    running = job.start()
    wait_until(lambda: set(job.to.glob("blob/*/*")) > before, what="a new blob")
    running.signal(number)
    return running


def stop_in_publish(job: Job, number: int) -> Running:
    running = job.start(*(f"publish.{n}.to={job.folder}/aside-{n}" for n in range(1, ASIDE + 1)))
    running.wait_for("published")
    running.signal(number)
    return running


# Which steps each may leave as the newest commit.
PHASES: list[tuple[Callable[[Job, int], Running], range]] = [
    (stop_in_scan, range(1)),
    (stop_in_start_up, range(1)),
    (stop_in_training, range(1, STEPS)),
    (stop_in_save, range(2, STEPS)),
    (stop_in_publish, range(STEPS, STEPS + 1)),
]


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param((signal.SIGTERM, signal.SIGINT), id="sigterm-first"),
        pytest.param((signal.SIGINT, signal.SIGTERM), id="sigint-first", marks=pytest.mark.full_matrix),
    ],
)
def test_a_run_stopped_in_every_phase_ends_as_an_uninterrupted_one(workshop, job, signals):
    for turn, (stop_in, steps) in enumerate(PHASES):
        ended = stop_in(job, signals[turn % 2]).end()
        assert ended.code == 75, f"{stop_in.__name__}:\n{ended.output}"
        assert ended.one("error")["exit_code"] == 75
        assert max(job.committed_steps(), default=0) in steps, stop_in.__name__
        job.verified()
    assert not (job.folder / f"aside-{ASIDE}").exists()
    check_goes_on(job, workshop)


def test_ctrl_c_to_the_whole_process_group_acts_once(workshop, job):
    running = job.start()
    running.wait_for("step")
    running.signal_group(signal.SIGINT)
    ended = running.end()
    assert ended.code == 75, ended.output
    assert len(ended.of("stopping")) == 1
    assert ended.committed[-1] == max(job.committed_steps()), "the step under way is saved"
    assert "Traceback" not in ended.output
    check_goes_on(job, workshop)


# ---- a trainer that does not answer ----------------------------------------------------------------------------------------


@pytest.fixture
def frozen(job: Job) -> tuple[Running, int]:
    """A run in its training whose trainer process stands still."""
    running = job.start("run.notice_s=2", "train.steps=1000")
    running.wait_for("step")
    [trainer] = running.trainers()
    os.kill(trainer, signal.SIGSTOP)
    return running, trainer


def test_a_second_signal_ends_the_run_at_once(job, frozen):
    running, trainer = frozen
    running.signal(signal.SIGTERM)
    running.wait_for("stopping")
    running.signal(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 75
    assert not ended.of("error"), "at once means without a word"
    check_gone([trainer])
    job.verified()


def test_a_run_ends_with_its_notice(job, frozen):
    running, trainer = frozen
    running.signal(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 75
    assert "the notice ended before the step did" in ended.error
    check_gone([trainer])
    job.verified()


# ---- no process outlives another -------------------------------------------------------------------------------------------


def test_trainers_die_with_their_parent(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS | {"run__accelerator": "cpu:2", "train__global_batch": 2})
    running = job.start()
    starting = running.trainers(count=2)
    running.kill()
    check_gone(starting)

    running = job.start()
    training = running.trainers(count=2)
    running.wait_for("step")
    running.kill()
    check_gone(training)
    job.verified()


def kill_parent(running: Running, _picture: BinaryIO) -> None:
    running.signal(signal.SIGKILL)


def ask_to_stop(running: Running, picture: BinaryIO) -> None:
    running.signal(signal.SIGTERM)
    picture.write(b"of no use any more")


def tear_the_picture(_running: Running, picture: BinaryIO) -> None:
    picture.write(b"no picture at all")


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [(kill_parent, -signal.SIGKILL, ""), (ask_to_stop, 75, "stopped on request"), (tear_the_picture, 65, "cannot be used")],
    ids=["killed", "stopped", "bad-picture"],
)
def test_trainers_that_wait_end_with_what_they_wait_for(job, what, code, words):
    """While the pictures are looked at, one of which is a pipe, the trainer imports already."""
    pictures = sorted((job.folder.parent / "pictures").glob("*.png"))
    pictures[-1].unlink()
    os.mkfifo(pictures[-1])
    running = job.start("data.max_bad_share=0.0")
    with pictures[-1].open("wb", buffering=0) as picture:  # opens when it is read
        waiting = running.trainers()
        what(running, picture)
    ended = running.end()
    assert ended.code == code, ended.output
    assert words in ended.output
    assert "Traceback" not in ended.output
    assert not ended.of("train")
    check_gone(waiting)


def test_a_killed_trainer_ends_its_gang_and_is_named(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS | {"run__accelerator": "cpu:2", "train__global_batch": 2})
    running = job.start("train.steps=1000")
    trainers = running.trainers(count=2)
    running.wait_for("step")
    os.kill(trainers[1], signal.SIGKILL)
    ended = running.end()
    assert ended.code == 70, ended.output
    assert "ended by signal 9" in ended.error
    check_gone(trainers)
    job.verified()

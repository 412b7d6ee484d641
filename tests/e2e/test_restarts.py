"""`sdjob run --restarts N`: whatever ends an attempt, the run ends as if nothing had; whoever asks to stop is heard once."""

import os
import signal
from pathlib import Path

import pytest

from fakes.processes import command_of, is_alive, parent_of
from fakes.running import SDJOB, Job, Running, wait_until
from sdjob.ledger.read import read_ledger
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

MANY_STEPS = 1000


def start(job: Job, *overrides: str, restarts: int = 3) -> Running:
    settings = [argument for override in overrides for argument in ("--set", override)]
    command = [str(SDJOB), "run", "--log", "json", "--restarts", str(restarts), str(job.file), *settings]
    return Running.begin(command, folder=job.folder, environment={"SDJOB_SCRATCH": str(job.scratch)})


def attempt_of(running: Running) -> int:
    """The process of the attempt that is under way."""
    found = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if parent_of(entry) == running.pid and b"sdjob" in command_of(entry)
    ]
    assert len(found) == 1, found
    return found[0]


def test_a_killed_and_a_stopped_attempt_are_followed_by_others_to_the_same_end(workshop, tmp_path):
    whole = workshop.finished("plain")
    job = workshop.job(tmp_path / "job")
    running = start(job)
    running.wait_for("commit")
    os.kill(attempt_of(running), signal.SIGKILL)
    running.wait_for("restart", restart=1, exit_code=137)
    running.wait_for("train", start_step=lambda step: step > 0)
    os.kill(attempt_of(running), signal.SIGTERM)
    running.wait_for("restart", restart=2, exit_code=75)
    ended = running.end()
    assert ended.code == 0, ended.output
    assert job.done_digest() == whole.done_digest()
    assert job.published() == whole.published()
    assert job.history().epoch == 3, "each attempt claims the run for itself"


# What a start that goes on from a commit consists of, in the order in which its parts end.
LAPS = ["imports", "stage", "look", "claim", "restore", "cache", "pictures", "prepare", "trainer-imports", "load", "first-step"]


def test_a_restart_finds_the_checkpoint_on_scratch_and_says_what_its_start_took(workshop, tmp_path, seaweed, monkeypatch):
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{seaweed.new_bucket()}/run"
    job = workshop.job(tmp_path / "job", checkpoint__to=place, checkpoint__every_steps=4)
    running = start(job)
    running.wait_for("commit")
    os.kill(attempt_of(running), signal.SIGKILL)
    ended = running.end()
    assert ended.code == 0, ended.output
    restored = ended.one("restored")
    assert restored["step"] == 4
    assert restored["near_bytes"] == restored["size_bytes"] > 0
    assert job.published() == workshop.finished("plain").published()
    assert not list(job.scratch.glob("*/kept")), "a run that is done needs them no more"

    second = read_ledger(open_store(parse_place(place, base=Path("/"))))[1]
    phases = [(event["name"], event["seconds"]) for event in second.events if event["kind"] == "phase"]
    names = [name for name, _ in phases]
    before = phases[: names.index("start-to-first-step")]
    assert [name for name, _ in before] == LAPS
    told_s = sum(seconds for _, seconds in before)
    assert told_s == pytest.approx(dict(phases)["start-to-first-step"], abs=0.01), "nothing is left out, nothing counted twice"


def test_a_stop_request_ends_all_and_a_killed_supervisor_lets_its_attempt_save(workshop, tmp_path):
    job = workshop.job(tmp_path / "job")
    running = start(job, f"train.steps={MANY_STEPS}")
    running.wait_for("commit")
    running.signal_group(signal.SIGINT)  # as the terminal's Ctrl-C
    ended = running.end()
    assert ended.code == 75, ended.output
    assert not ended.of("restart")
    stopped_at = job.committed_steps()[-1]
    assert f"step {stopped_at} is committed" in ended.output

    running = start(job, f"train.steps={MANY_STEPS}")
    running.wait_for("commit")
    attempt = attempt_of(running)
    running.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(attempt), what="the end of the attempt")
    assert job.ledgers()[-1].events[-1]["exit_code"] == 75
    assert job.committed_steps()[-1] > stopped_at
    running.end()

"""`sdjob run` as the first process of a container: no shell before it, nobody behind it who would collect or forward anything."""

import os
import signal
import socket
import subprocess
import urllib.request
from contextlib import closing
from functools import cache
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fakes.metadata import MetadataServer
from fakes.processes import parent_of
from fakes.running import HANG_S, SDJOB, Job, Running, wait_until

NEW_PIDS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]  # the one that it starts has number 1


@cache
def prefix() -> list[str]:
    """As root, or as one in a namespace of users; without either, sdjob is the first process of nothing here."""
    for command in (NEW_PIDS, [*NEW_PIDS, "--user", "--map-root-user"]):
        if subprocess.run([*command, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return command
    return []


def start(job: Job, *overrides: str, **environment: str) -> Running:
    settings = [argument for override in overrides for argument in ("--set", override)]
    command = [*prefix(), str(SDJOB), "run", "--log", "json", str(job.file), *settings]
    return Running.begin(command, folder=job.folder, environment={"SDJOB_SCRATCH": str(job.scratch), **environment})


def first_process(running: Running) -> int:
    """Its number outside: the child of `unshare`."""
    if not prefix():
        return running.pid
    return next(int(entry.name) for entry in Path("/proc").glob("[0-9]*") if parent_of(entry) == running.pid)


def test_the_first_process_of_a_container_tells_how_it_stands_and_how_it_ended(workshop, tmp_path):
    job, words = workshop.job(tmp_path / "job"), tmp_path / "termination-log"
    words.touch()
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    running = start(job, "train.steps=1000", SDJOB_METRICS_PORT=str(port), SDJOB_TERMINATION_LOG=str(words))
    committed = running.wait_for("commit", step=lambda step: step >= 4)["step"]
    wait_until(lambda: scraped(port).get("sdjob_last_commit_step", 0) >= committed, what="the commit in the metrics")
    told = scraped(port)
    assert told["sdjob_step"] >= committed
    assert (told["sdjob_attempt"], told["sdjob_restarts_total"], told["sdjob_target_step"]) == (1, 0, 1000)
    assert told["sdjob_images_total"] == 2 * told["sdjob_step"]
    assert 0 <= told["sdjob_last_commit_age_seconds"] < HANG_S
    os.kill(first_process(running), signal.SIGTERM)
    ended = running.end()
    assert ended.code == 75, ended.output
    assert words.read_text().startswith(f"stopped on request; step {job.committed_steps()[-1]} is committed.")
    again = start(job, f"train.steps={job.committed_steps()[-1]}", SDJOB_TERMINATION_LOG=str(words)).end()
    assert again.code == 0, again.output
    assert words.read_text() == "done"


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_S) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def test_the_machines_own_notice_saves_and_ends_the_run(workshop, tmp_path):
    job, words, machine = workshop.job(tmp_path / "job"), tmp_path / "termination-log", MetadataServer("gce")
    words.touch()
    with closing(machine):
        addresses = {"GCE_METADATA_HOST": machine.host, "AWS_EC2_METADATA_DISABLED": "true"}
        running = start(job, "train.steps=1000", "run.spot=true", SDJOB_TERMINATION_LOG=str(words), **addresses)
        committed = running.wait_for("commit")["step"]
        machine.preempted = "TRUE"
        ended = running.end()
    assert ended.code == 75, ended.output
    assert job.committed_steps()[-1] > committed
    assert words.read_text().startswith("stopped on request: Google Compute Engine preempts this machine; step ")


def test_a_job_file_that_is_wrong_leaves_its_sentence_too(workshop, tmp_path):
    job, words = workshop.job(tmp_path / "job"), tmp_path / "termination-log"
    words.touch()
    ended = start(job, "train.steps=0", SDJOB_TERMINATION_LOG=str(words)).end()
    assert ended.code == 64
    assert "train.steps" in words.read_text()

"""Encoders that run once, as real processes: `sdjob cache` alone, killed in the middle, and taken over by a run."""

import hashlib
import os
import shutil
import signal
import subprocess

import pytest

from fakes.backends import compiled_once
from fakes.pictures import write_picture_folder
from fakes.running import SDJOB, wait_until
from sdjob.encodings.reader import read_table
from sdjob.encodings.shard import ShardFile

FIELDS = {
    "data__flip": True,
    "data__caption_dropout": 0.2,
    "train__steps": 2,
    "train__schedule": {"name": "constant_with_warmup", "warmup_steps": 1},
    "validation": {"prompts": ["a red circle"], "every_steps": 2, "images": 1, "inference_steps": 2},
    "publish": [],
}
NUM_PICTURES = 200  # four shards, and as many of them flipped


def shards_in(folder):
    """sha256 by shard, of files that are what their names say."""
    found = {}
    for path in folder.iterdir():
        file = ShardFile.of(path.name)
        assert file is not None, path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        found[file.name] = file.sha256
    return found


def kept(job):
    return shards_in(job.to / "cache/encodings")


def test_a_run_of_the_other_backend_finds_the_work_done(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **FIELDS)
    alone = job.run(verb="cache")
    assert alone.code == 0, alone.output
    assert alone.one("encoded")["computed"] == 3
    assert not any((job.to / part).exists() for part in ("log", "blob", "attempts"))
    shards = kept(job)
    assert job.run(verb="cache").one("encoded")["computed"] == 0
    elsewhere = workshop.job(tmp_path / "elsewhere", **FIELDS, run__cache=str(job.to))
    assert elsewhere.run(verb="cache").one("encoded")["computed"] == 0
    assert shards_in(elsewhere.scratch / "encodings") == shards
    assert not (elsewhere.to / "cache").exists()

    scratch = job.scratch / "encodings"
    damaged, missing, whole = sorted(scratch.iterdir())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    missing.unlink()
    ended = job.run("train.backend=flax", environment=compiled_once(workshop))
    assert ended.code == 0, ended.output
    assert ended.one("encodings-damaged")["message"] == f"{damaged} is not what was written: it is taken anew"
    assert ended.one("encoded")["computed"] == 0
    assert not ended.of("encode")
    assert kept(job) == shards_in(scratch) == shards
    assert whole.exists()
    (tmp_path / "checkpoint").mkdir()
    job.log.fetch(tmp_path / "checkpoint", step=2)
    assert read_table(tmp_path / "checkpoint/encodings.json") == shards


@pytest.mark.parametrize("backend", ["torch", "flax"])
def test_a_pass_that_was_killed_goes_on_to_the_same_bytes(workshop, tmp_path, backend):
    write_picture_folder(tmp_path / "pictures", count=NUM_PICTURES)
    fields = {**FIELDS, "pictures": tmp_path / "pictures", "train__backend": backend}
    straight, struck = (workshop.job(tmp_path / name, **fields) for name in ("straight", "struck"))
    environment = compiled_once(workshop)
    assert straight.run(verb="cache", environment=environment).code == 0
    running = struck.start(verb="cache", environment=environment)
    wait_until(lambda: any(struck.scratch.glob("encodings/*.safetensors")), what="the first shard")
    assert running.kill().code == -signal.SIGKILL
    finished = len(shards_in(struck.scratch / "encodings"))
    resumed = struck.run(verb="cache", environment=environment)
    assert resumed.code == 0, resumed.output
    assert resumed.one("encoded")["computed"] == len(kept(straight)) - finished > 0
    assert kept(struck) == kept(straight)


def test_a_run_goes_on_to_the_same_bytes_where_all_encodings_are_lost(workshop, tmp_path):
    fields = {**FIELDS, "train__steps": 4, "checkpoint__every_steps": 2, "validation": None}
    straight = workshop.finished("encoded once", **fields)
    job = workshop.job(tmp_path / "job", **fields)
    running = job.start()
    running.wait_for("commit", step=2)
    running.kill()
    shutil.rmtree(job.scratch)
    shutil.rmtree(job.to / "cache")
    resumed = job.run()
    assert resumed.code == 0, resumed.output
    assert not resumed.of("inexact")
    assert job.done_digest() == straight.done_digest()
    assert kept(job) == kept(straight)


def test_nothing_to_encode_beforehand(workshop, tmp_path):
    ended = workshop.job(tmp_path / "job", **FIELDS, data__crop="random").run(verb="cache")
    assert ended.code == 64
    assert "the encoders cannot run once for this job" in ended.error


def pruned(job, *flags):
    """(exit code, lines on stdout)"""
    command = [str(SDJOB), "cache", str(job.file), "--prune", *flags]
    ended = subprocess.run(command, env={**os.environ, "SDJOB_SCRATCH": str(job.scratch)}, check=False, stdout=subprocess.PIPE)
    return ended.returncode, ended.stdout.decode().splitlines()


def test_what_a_job_does_not_need_goes_when_asked_to(workshop, tmp_path):
    shared = tmp_path / "shared"
    flips = workshop.job(tmp_path / "flips", **FIELDS, run__cache=str(shared))
    plain = workshop.job(tmp_path / "plain", **{**FIELDS, "data__flip": False}, run__cache=str(shared))
    assert flips.run(verb="cache").code == 0
    shards = shards_in(shared / "cache/encodings")
    code, (line, count, others, rest) = pruned(plain)
    assert code == 0
    assert count.startswith(f"needed neither by this job nor by a checkpoint known in {shared.as_uri()}: 1 of 3 shards, ")
    assert others == "other jobs may share run.cache: what they need of these they encode again"
    assert rest == "nothing was deleted: --prune --yes deletes them"
    assert shards_in(shared / "cache/encodings") == shards
    code, (gone, count) = pruned(plain, "--yes")
    assert (code, gone) == (0, line)
    assert count.startswith(f"deleted in {shared.as_uri()}: 1 of 3 shards, ")
    left = shards_in(shared / "cache/encodings")
    assert left.items() < shards.items()
    assert len(left) == 2
    assert pruned(plain)[1][0].startswith("needed neither by this job nor")

"""`train.fsdp` as a person has it: processes that share a state train, stop, hand over and publish as if each had all of it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fakes.backends import apart, compiled_once, handed_over, trained, untrained
from fakes.running import SDJOB, Job, Workshop

STEPS, SAVE_EVERY = 8, 3
WHOLE = {
    "family": "sd2",
    "train__method": "full",
    "train__steps": STEPS,
    "train__global_batch": 4,  # two micro-steps of two processes
    "train__optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6},
    "train__schedule": {"name": "constant_with_warmup", "warmup_steps": 3},
    "train__ema": {"decay": 0.6},
    "train__gradient_checkpointing": True,
    "checkpoint__every_steps": SAVE_EVERY,
    "run__accelerator": "cpu:2",
}
SPREAD = {**WHOLE, "train__fsdp": True}
ON_FLAX = {**WHOLE, "train__backend": "flax"}
ALONE = {**WHOLE, "run__accelerator": "cpu:1"}
ROUNDING = 1e-4


def straight(workshop: Workshop, *, spread: bool) -> Job:
    return workshop.finished("spread" if spread else "not spread", **(SPREAD if spread else WHOLE))


def files_of(job: Job, folder: Path, *, step: int = STEPS) -> Path:
    folder.mkdir()
    job.log.fetch(folder, step=step)
    return folder


def test_two_that_share_a_state_train_as_two_that_have_all_of_it(workshop, tmp_path):
    whole, spread = straight(workshop, spread=False), straight(workshop, spread=True)
    assert spread.losses() == pytest.approx(whole.losses(), rel=1e-5)
    assert set(spread.losses()) == set(range(1, STEPS + 1))
    ours, theirs = (trained(job, folder=tmp_path / str(number), step=STEPS) for number, job in enumerate((spread, whole)))
    assert any(name.startswith("ema.") for name in ours)
    assert apart(ours, theirs, start=untrained(workshop, "full", like=ours)) <= ROUNDING
    assert len(spread.samples()) == 1, "all draw, and one writes"
    spread.verified()


@pytest.mark.parametrize(
    ("fields", "spread_before", "words"),
    [
        (ALONE, True, ["devices: 2 -> 1", "train.fsdp: true -> absent"]),
        (ON_FLAX, True, ['backend: "torch" -> "flax"', "train.fsdp: true -> absent"]),
        (SPREAD, False, ["train.fsdp: absent -> true"]),
    ],
    ids=["by one", "by flax", "by two that share it"],
)
def test_what_one_gang_began_another_ends(workshop, tmp_path, fields, spread_before, words):
    before = straight(workshop, spread=spread_before)
    job = workshop.job(tmp_path / "job", **fields)
    step = handed_over(job, of=before, at_most=SAVE_EVERY)
    ended = job.run(environment=compiled_once(workshop))
    assert ended.code == 0, ended.output
    assert ended.start_step == step == SAVE_EVERY
    said = ended.one("inexact")["message"]
    assert all(word in said for word in words), said
    assert job.losses() == pytest.approx(before.losses(), rel=ROUNDING)
    ours, theirs = (trained(of, folder=tmp_path / name, step=STEPS) for of, name in ((job, "ours"), (before, "theirs")))
    assert apart(ours, theirs, start=untrained(workshop, "full", like=theirs)) <= ROUNDING


def test_a_stop_request_is_saved_by_all(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **SPREAD)
    running = job.start("train.steps=1000")
    running.wait_for("commit")
    running.signal(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 75, ended.output
    stopped = max(job.committed_steps())
    assert f"step {stopped} is committed" in ended.error
    folder = files_of(job, tmp_path / "last", step=stopped)
    parts = {f"{kind}-0000{rank}-of-00002.safetensors" for kind in ("weights", "optimizer", "ema") for rank in (1, 2)}
    assert parts <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "state.json").read_text())["step"] == stopped
    job.verified()


def test_what_is_published_is_the_parts_put_together(workshop, tmp_path):
    job = straight(workshop, spread=True)
    folder = files_of(job, tmp_path / "last")
    command = [SDJOB, "export", str(job.to), "--to", str(tmp_path / "raw"), "--weights", "raw"]
    environment = {**os.environ, "SDJOB_SCRATCH": str(job.scratch)}
    said = subprocess.run(command, env=environment, cwd=job.folder, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    for kind, prefix, out in (("ema", "ema.unet.", job.out), ("weights", "unet.", tmp_path / "raw")):
        parts = [load_file(folder / f"{kind}-0000{rank}-of-00002.safetensors") for rank in (1, 2)]
        found = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
        assert {prefix + name for name in found} == set(parts[0]) == set(parts[1])
        for name, values in found.items():
            assert np.array_equal(values, np.concatenate([part[prefix + name] for part in parts])), name

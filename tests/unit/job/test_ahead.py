"""`plan --compile`: the question, the answer, and that no question is asked twice."""

import json
import subprocess
from importlib import util

import pytest

from sdjob.cli.main import main
from sdjob.core.errors import UnavailableError, UsageError
from sdjob.job.ahead.program import program_ahead, question
from sdjob.job.ahead.task import ahead_task
from sdjob.plan.program import Program
from sdjob.spec.hardware import parse_accelerator
from unit.plan.jobs import SDXL, make_job, model_of

TOLD = {"peak_bytes": 3 * 2**30, "parts": {"weights": 2**30}, "flops": 2_000_000_000_000}
TPU_TOLD = {
    "needed_bytes": 2**30, "argument_bytes": 5, "temporary_bytes": 6, "code_bytes": None, "flops": 197e12,
    "accessed_bytes": 2 * 819e9,
    "hbm_bytes": 2**34,
}  # fmt: skip
TPU = {"train": {"method": "full", "backend": "flax"}}


@pytest.fixture
def children(monkeypatch):
    """Trainers' processes: each ends at once and has told this."""
    started = []

    def run(argv, **_):
        started.append(argv)
        told = TPU_TOLD if "sdjob.train_flax.forecast" in argv else TOLD
        return subprocess.CompletedProcess(argv, 0, "a line of somebody else's\n" + json.dumps(told) + "\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    return started


def ask(job, keep, *, memory_alone=False):
    return program_ahead(job, model=model_of(job), keep=keep, memory_alone=memory_alone)


def key(tmp_path, *arguments, **parts):
    job = make_job(*arguments, **parts)
    return question(ahead_task(job, model=model_of(job), folder=tmp_path), memory_alone=False)


def test_asked_once(children, tmp_path):
    found = ask(make_job(), tmp_path)
    assert (found.needed_bytes, found.parts_bytes, found.flops) == (TOLD["peak_bytes"], TOLD["parts"], TOLD["flops"])
    assert ask(make_job(), tmp_path) == found
    assert len(children) == 1
    ask(make_job(train={"device_batch": 2}), tmp_path)
    assert len(children) == 2


def test_an_answer_that_is_damaged_is_asked_for_again(children, tmp_path):
    found = ask(make_job(), tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text("{")
    assert ask(make_job(), tmp_path) == found
    assert len(children) == 2


def test_a_folder_that_cannot_be_written_to_is_no_error(children, tmp_path):
    (tmp_path / "file").touch()
    assert ask(make_job(), tmp_path / "file").needed_bytes == TOLD["peak_bytes"]


def test_what_the_answer_depends_on(tmp_path):
    keys = {
        "first": key(tmp_path / "0"),
        "batch": key(tmp_path / "1", train={"device_batch": 2}),
        "model": key(tmp_path / "2", source=SDXL),
        "device": key(tmp_path / "3", "nvidia-t4"),
        "size": key(tmp_path / "4", px=768),
        "cache": key(tmp_path / "5", train={"cache": "never"}),
    }
    assert len(set(keys.values())) == len(keys)
    assert key(tmp_path / "6", train={"steps": 7, "seed": 3}) == keys["first"]


def test_a_tpus_program(children, tmp_path):
    found = ask(make_job("tpu-v5e:2x4@8t", **TPU), tmp_path, memory_alone=True)
    assert children[0][-1] == "--memory"
    assert found.parts_bytes == {"arguments": 5, "temporaries": 6}
    assert found.capacity_bytes == 2**34


def test_roofline():
    """On v5e: 197 TFLOP at 197 TFLOP/s against 1638 GB at 819 GB/s."""
    machine = parse_accelerator("tpu-v5e:1x1")
    program = Program("x", 1, {}, 197e12, 2 * 819e9, 1)
    assert program.least_s(machine=machine) == (pytest.approx(2.0), "traffic")
    assert Program("x", 1, {}, 197e12, None, None).least_s(machine=machine) == (pytest.approx(1.0), "arithmetic")
    assert Program("x", 1, {}, 1.0, None, None).least_s(machine=parse_accelerator("cpu")) is None


def test_flax_is_compiled_ahead_for_tpus_alone(children, tmp_path):
    with pytest.raises(UsageError, match="flax compiles ahead for a TPU alone"):
        ask(make_job("cpu", **TPU), tmp_path)
    assert children == []


def test_a_state_that_is_spread_is_not_made_ahead(children, tmp_path):
    with pytest.raises(UsageError, match="the state is spread over several") as refused:
        ask(make_job("nvidia-l4:2", train={"method": "full", "fsdp": True}), tmp_path)
    assert refused.value.where == "train.fsdp"
    assert children == []


def test_a_package_that_is_missing(children, tmp_path, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "libtpu" else object())
    with pytest.raises(UnavailableError, match=r"pip install 'sdjob\[tpu\]'"):
        ask(make_job("tpu-v5e:2x2", **TPU), tmp_path)


def test_a_childs_error_is_ours(monkeypatch, tmp_path):
    ended = subprocess.CompletedProcess([], 64, "", "train.global_batch: 3 is no multiple of 4 devices")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(UsageError, match="no multiple of 4 devices"):
        ask(make_job(), tmp_path)


def test_the_command_line(children, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SDJOB_SCRATCH", str(tmp_path))
    (tmp_path / "job.yaml").write_text(
        "apiVersion: sdjob/v1\nname: x\nmodel: {source: hf://CompVis/stable-diffusion-v1-4}\ndata: {source: /nowhere}\n"
        "train: {method: lora, steps: 10}\nrun: {accelerator: nvidia-l4}\n"
    )
    assert main(["plan", str(tmp_path / "job.yaml"), "--compile"]) == 0
    assert "compiled      by torch's own step" in capsys.readouterr().out
    assert main(["plan", str(tmp_path / "job.yaml"), "--compile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compiled"]["roofline_s"] == pytest.approx(2 / 121)
    assert len(children) == 1


def test_a_real_child(tmp_path):
    """Small enough to trace in seconds: a quarter of SD 1.5's levels, in its own process."""
    from fakes.tiny_models import write_tiny_model

    write_tiny_model(tmp_path / "model", family="sd1")
    job = make_job(None, source=str(tmp_path / "model"), px=64)
    found = ask(job, tmp_path / "keep")
    assert found.by.startswith("torch")
    assert sum(found.parts_bytes.values()) == found.needed_bytes

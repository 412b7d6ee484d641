"""What `sdjob plan` says of the job files that are in the repository, and of one that does not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sdjob.cli.main import main

HERE, JOBS = Path(__file__).parent, Path(__file__).parents[2] / "jobspecs"
FILES = ("sd15-lora-l4-spot", "sd15-full-a100x8", "sd15-full-tpu-v5e-4x4", "sdxl-lora-a100")


@pytest.fixture(autouse=True)
def where_the_job_files_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(JOBS.parent)


@pytest.mark.parametrize("name", FILES)
def test_plan(name: str, golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(JOBS / f"{name}.yaml")]) == 0
    golden(HERE / "plan" / f"{name}.txt", capsys.readouterr().out)


def test_a_job_that_does_not_fit(golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(JOBS / "sdxl-lora-a100.yaml"), "--set", "run.accelerator=nvidia-t4"]) == 0
    golden(HERE / "plan" / "too-large.txt", capsys.readouterr().out)


def test_a_job_of_this_machine(golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(JOBS / "quickstart.yaml")]) == 0
    golden(HERE / "plan" / "quickstart.txt", capsys.readouterr().out)

import json
from pathlib import Path

import pytest

from sdjob.cli.main import main

JOB = """\
apiVersion: sdjob/v1
name: first
model: {source: hf://stable-diffusion-v1-5/stable-diffusion-v1-5}
data: {source: pictures, resolution: 512}
train: {method: lora, steps: 10000}
run: {accelerator: nvidia-l4}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "pictures").mkdir()
    for number in range(10):
        (tmp_path / "pictures" / f"{number}.png").touch()
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    assert main(["plan", "job.yaml", "--json", *arguments]) == code
    return json.loads(capsys.readouterr().out)


def test_json(capsys):
    found = planned(capsys)
    assert found["length"] == {"steps": 10000, "pictures": 10, "seen": 10000, "epochs": 1000.0}
    assert found["device_memory"]["fits"] is True
    assert sum(found["device_memory"]["parts_bytes"].values()) == found["device_memory"]["needed_bytes"]
    assert found["usd"]["high"] == pytest.approx(found["hours"]["high"] * found["price"]["usd"])
    assert found["would_fit"] == []


def test_an_override_counts(capsys):
    found = planned(capsys, "--set", "run.accelerator=nvidia-l4:2", "--set", "train.precision=fp32")
    assert (found["devices"], found["step_s"], found["usd"]) == (2, None, None)


def test_limits_end_with_64_and_the_plan_is_shown_all_the_same(capsys):
    found = planned(capsys, "--budget", "1000", "--max-hours", "100")
    for limit in (["--budget", str(found["usd"]["high"] * 0.99)], ["--max-hours", str(found["hours"]["high"] * 0.99)]):
        assert main(["plan", "job.yaml", *limit]) == 64
        captured = capsys.readouterr()
        assert captured.out.startswith("job ")
        assert captured.err.startswith(f"sdjob: first: {limit[0]}")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["none.yaml"], 66, "none.yaml"),
        (["job.yaml", "--budget", "cheap"], 64, "argument --budget: must be a number above 0, not 'cheap'"),
        (["job.yaml", "--budget", "0"], 64, "must be a number above 0"),
        (["job.yaml", "--max-hours", "nan"], 64, "must be a number above 0"),
        (["job.yaml", "--prices", "none.toml"], 66, "none.toml: there is no such file of prices."),
        (["job.yaml", "--set", "train.steps=0"], 64, "train.steps"),
        (["job.yaml", "--set", "model.source=pictures"], 66, "the model folder lacks this file"),
    ],
)
def test_what_is_wrong(arguments, code, told, capsys):
    assert main(["plan", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err


def test_a_pod_that_is_too_small_is_told(capsys):
    cluster = ["--set", "run.kubernetes={flavor: gke, image: i, memory_gib: 5}"]
    assert main(["plan", "job.yaml", *cluster]) == 0
    assert "run.kubernetes.memory_gib: 5 may be too little: set 7" in capsys.readouterr().out
    assert main(["plan", "job.yaml", *cluster, "--set", "run.kubernetes.memory_gib=7"]) == 0
    assert "may be too little" not in capsys.readouterr().out

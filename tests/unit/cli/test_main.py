import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdjob import __version__
from sdjob.cli import init, validate
from sdjob.cli.main import main
from sdjob.core.errors import FencedError

GOOD = """\
apiVersion: sdjob/v1
name: emoji
model: {source: models/base}
data: {source: pictures}
train: {method: lora, steps: 100}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("steps: 100", "steps: 0") + "runs: {}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "sdjob: a command is missing. See `sdjob --help`.\n"),
        (["--log", "json"], None),
        (["valdiate", "x"], "did you mean 'validate'?"),
        (["nothing-like-it"], "See `sdjob --help`."),
        (["--frobnicate"], "unrecognized arguments"),
        (["validate"], "the following arguments are required: FILE. See `sdjob validate --help`."),
        (["validate", "good.yaml", "--jsn"], "unrecognized arguments: --jsn"),
        (["--log", "loud", "validate", "good.yaml"], "argument --log: invalid choice"),
        (["init", "x.yaml", "--template", "nothing"], "argument --template: invalid choice"),
    ],
)
def test_a_wrong_command_line_is_64(arguments: list[str], told: str | None, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (told or "") in captured.err


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdjob {__version__}\n"


def test_validate_says_one_line_for_each_file(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "good.yaml", "bad.yaml", "none.yaml"]) == 64
    captured = capsys.readouterr()
    assert captured.out == "good.yaml: valid\nbad.yaml: not valid, 2 problems\nnone.yaml: not valid, 1 problem\n"
    assert [line.split(": ")[0] for line in captured.err.splitlines()] == ["bad.yaml:5", "bad.yaml:6", "none.yaml"]


def test_validate_tells_a_missing_file_apart():
    assert main(["validate", "none.yaml"]) == 66
    assert main(["validate", "good.yaml", "--set", "train.steps=7"]) == 0


def test_validate_names_what_cannot_run_yet(capsys: pytest.CaptureFixture[str]):
    slices = ["train.backend=flax", "run.accelerator='tpu-v5e:4x4'", "run.slices=2"]
    assert main(["validate", "good.yaml", *(word for override in slices for word in ("--set", override))]) == 0
    told = f"good.yaml: valid; sdjob {__version__} cannot run it yet because of run.slices\n"
    assert capsys.readouterr().out == told


def test_validate_for_programs(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--json", "good.yaml", "bad.yaml"]) == 64
    captured = capsys.readouterr()
    good, bad = json.loads(captured.out)
    assert good == {"file": "good.yaml", "valid": True, "problems": [], "not_yet": []}
    assert (bad["problems"][0]["line"], bad["problems"][0]["path"]) == (5, "train.steps")
    assert captured.err == ""


def test_values_of_secret_variables_are_not_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("MY_TOKEN", "correct-horse")
    assert main(["validate", "good.yaml", "--set", "name=${MY_TOKEN}!"]) == 64
    captured = capsys.readouterr()
    assert "correct-horse" not in captured.err + captured.out


def test_init_refuses_to_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", "good.yaml"]) == 64
    assert "exists already" in capsys.readouterr().err
    assert (folder / "good.yaml").read_text() == GOOD
    assert main(["init", "none/new.yaml"]) == 66


@pytest.mark.parametrize(("path", "name"), [("My Job.yaml", "my-job"), ("___.yaml", "job"), ("a" * 60 + ".yaml", "a" * 40)])
def test_init_makes_a_name_of_the_path(path: str, name: str):
    assert init.job_name(Path(path)) == name
    assert main(["init", path]) == 0
    assert main(["validate", path]) == 0


def raising(error: BaseException):
    def execute(*_args: object, **_named: object) -> int:
        raise error

    return execute


def test_an_error_is_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(validate, "execute", raising(FencedError("another attempt owns the run.", where="runs/x")))
    assert main(["validate", "good.yaml"]) == 76
    assert capsys.readouterr().err == "sdjob: runs/x: another attempt owns the run.\n"


def test_an_error_is_an_event_where_json_was_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(validate, "execute", raising(FencedError("another attempt owns the run.")))
    for arguments in (["--log", "json", "validate", "good.yaml"], ["validate", "good.yaml", "--log=json"]):
        assert main(arguments) == 76
        event = json.loads(capsys.readouterr().err)
        assert (event["event"], event["exit_code"], event["message"]) == ("error", 76, "another attempt owns the run.")


def test_anything_else_is_a_fault_of_sdjob(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(validate, "execute", raising(KeyError("x")))
    assert main(["validate", "good.yaml"]) == 70
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.endswith("sdjob: this is a fault of sdjob: KeyError: 'x'\n")


def test_control_c_is_a_stop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validate, "execute", raising(KeyboardInterrupt()))
    assert main(["validate", "good.yaml"]) == 75


def test_a_reader_that_closes_the_output_makes_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "sdjob", "schema"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    assert done.stderr == "sdjob: whoever read the output has closed it.\n"

"""All of doctor at once: the order of what it looks at, and how it ends."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.folders import MODEL_FILES, write_files
from fakes.pictures import write_picture_folder
from sdjob.cli.main import main
from sdjob.core.errors import UnavailableError
from sdjob.core.log import Log
from sdjob.job.doctor import examine
from sdjob.job.doctor.checkup import Checkup
from sdjob.job.doctor.examine import Examination
from sdjob.store.base import ObjectDeniedError

MACHINE = ["accelerator", "cpu", "memory", "python", "sdjob", "packages", "scratch"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job on a machine without a GPU, all of whose places are folders."""
    monkeypatch.setenv("PATH", "/nowhere")
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for name, value in {"SDJOB_SCRATCH": str(tmp_path / "scratch"), **nobody}.items():
        monkeypatch.setenv(name, value)
    write_files(MODEL_FILES, tmp_path / "model")
    write_picture_folder(tmp_path / "pictures", count=2)
    file = tmp_path / "job.yaml"
    file.write_text(f"""\
apiVersion: sdjob/v1
name: tiny
model: {{source: {tmp_path}/model}}
data: {{source: {tmp_path}/pictures, resolution: 64}}
train: {{method: lora, steps: 4}}
checkpoint: {{to: {tmp_path}/run}}
publish: [{{to: {tmp_path}/published}}]
""")
    return file


def doctor(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    code = main(["doctor", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def in_order(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def test_a_job_that_would_run(file, capsys):
    before = sorted(file.parent.rglob("*"))
    code, lines, errors = doctor(file, capsys=capsys)
    assert (code, errors) == (0, "")
    *lines, last = lines
    fields = [
        "run.accelerator",
        "train.precision",
        "model.source",
        "data.source",
        "checkpoint.to",
        "publish.0.to",
        "run.notice_s",
    ]
    assert in_order([line[9:].split("  ")[0] for line in lines]) == ["job file", *MACHINE, *fields]
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert last.startswith("0 failed, ")
    assert last.endswith(": exit 0")
    assert sorted(file.parent.rglob("*")) == before


def test_the_machine_alone(file, monkeypatch):
    def open_place(place):
        if place.scheme == "s3":
            raise UnavailableError("s3:// places need the package boto3.")
        raise ObjectDeniedError("no credentials.", where=place.uri, next_step="Log in.")

    found = list(Examination(Log(stream=io.StringIO()), open=open_place, environment={}).findings(Checkup(30.0)))
    assert in_order([one.check for one in found]) == [*MACHINE, "gs://", "hf://", "run.notice_s"]
    assert [(one.state, one.line()) for one in found if one.check == "gs://"] == [
        ("warning", "warning  gs://            no credentials. Log in.")
    ]
    assert not [one for one in found if one.state == "failed"]


def test_for_programs(file, capsys):
    code, lines, _ = doctor("--json", file, "--set", "run.accelerator=nvidia-l4", capsys=capsys)
    told = json.loads("\n".join(lines))
    assert (code, told["exit_code"]) == (69, 69)
    (failed,) = (one for one in told["findings"] if one["state"] == "failed")
    assert (failed["check"], failed["exit_code"], failed["where"]) == ("run.accelerator", 69, "")
    assert failed["what"] == "the job asks for 1 NVIDIA device(s); this machine has 0."
    assert failed["next_step"]


def test_a_job_file_with_mistakes_is_64_and_the_machine_is_looked_at_all_the_same(file, capsys):
    file.write_text(file.read_text().replace("steps: 4", "steps: 0") + "runs: {}\n")
    code, lines, _ = doctor(file, capsys=capsys)
    assert code == 64
    assert next(line for line in lines if line.startswith("failed")).startswith(
        f"failed   job file         {file}:5: train.steps"
    )
    assert {name for name in MACHINE if any(line[9:].startswith(name) for line in lines)} == set(MACHINE)
    assert not any("checkpoint.to" in line for line in lines)


def test_a_job_file_that_is_not_there_is_66(file, capsys):
    assert doctor(file.parent / "none.yaml", capsys=capsys)[0] == 66


def test_what_this_version_cannot_do_is_64(file, capsys, monkeypatch):
    monkeypatch.setattr(examine, "unsupported", lambda job: ["run.spot: this version cannot do that yet."])
    code, lines, _ = doctor(file, capsys=capsys)
    assert code == 64
    assert [line for line in lines if line.startswith("failed")] == [
        "failed   job file         run.spot: this version cannot do that yet."
    ]


def test_the_first_failure_is_the_exit_code(file, capsys):
    absent = f"model.source={file.parent}/none"
    assert doctor(file, "--set", absent, capsys=capsys)[0] == 66
    assert doctor(file, "--set", absent, "--set", "run.accelerator=nvidia-l4", capsys=capsys)[0] == 69


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_out_that_is_none_is_64(seconds, capsys):
    assert main(["doctor", "--timeout", seconds]) == 64


def test_no_secret_is_told(file, capsys, monkeypatch):
    """Planted where they could come from: the environment, an endpoint's address, the name of a place."""
    planted = {"MY_TOKEN": "correct-horse-battery", "AWS_SECRET_ACCESS_KEY": "s" * 40, "AWS_ACCESS_KEY_ID": "AKIA" + "Q" * 16}
    for name, value in {**planted, "AWS_ENDPOINT_URL_S3": "http://me:pass-word-1@127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "z" * 34)
    secrets = [*planted.values(), "pass-word-1", "hf_" + "z" * 34]
    fields = ["model.source=s3://bucket/x", f"data.source={file.parent}/correct-horse-battery", "publish.0.to=hf://me/x"]
    settings = [word for field in fields for word in ("--set", field)]
    for words in ([], ["--json"]):
        _, lines, errors = doctor(*words, file, *settings, capsys=capsys)
        told = "\n".join(lines) + errors
        assert "127.0.0.1" in told
        assert f"{file.parent}/***" in told
        assert [secret for secret in secrets if secret in told] == []


# A check that waits for a thread of a pool: Python's own way out would wait for that thread too.
WAITS_FOR_A_POOL = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from sdjob.cli.main import main
from sdjob.job.doctor import hardware

hardware.memory = lambda: [ThreadPoolExecutor(1).submit(time.sleep, 600).result()]
sys.exit(main(["doctor", "--timeout", "0.5", sys.argv[1]]))
"""


def test_the_process_ends_though_a_check_hangs(file):
    ended = subprocess.run(
        [sys.executable, "-c", WAITS_FOR_A_POOL, str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 74
    *lines, last = ended.stdout.splitlines()
    assert any(line.startswith("failed   memory           no answer within 0.5 s") for line in lines)
    assert any("checkpoint.to" in line for line in lines)
    assert last.endswith("exit 74")

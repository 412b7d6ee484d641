"""`sdjob doctor` as a real process against real servers: places in S3, GCS and on the Hub, and a server that never answers."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.folders import MODEL_FILES, write_files
from fakes.running import SDJOB
from sdjob.job.record import RECORD_NAME

HANG_S = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(MODEL_FILES, tmp_path / "model")
    write_files({"a.png": b"1", "a.txt": b"a cat"}, tmp_path / "pictures")
    (tmp_path / "job.yaml").write_text(f"""\
apiVersion: sdjob/v1
name: tiny
model: {{source: {tmp_path}/model}}
data: {{source: {tmp_path}/pictures, resolution: 64}}
train: {{method: lora, steps: 4}}
run: {{accelerator: cpu}}
""")
    return tmp_path


def doctor(folder: Path, *words: str, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Its exit code, and every line that it wrote."""
    ended = subprocess.run(
        [str(SDJOB), "doctor", str(folder / "job.yaml"), *words],
        env={**os.environ, "SDJOB_SCRATCH": str(folder / "scratch"), **environment},
        cwd=folder, capture_output=True, text=True, check=False, timeout=HANG_S,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


def settings(**fields: str) -> list[str]:
    return [word for name, value in fields.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]


def lines_of(lines: list[str], check: str) -> list[str]:
    """State and words."""
    return [f"{line.split()[0]} {line[26:]}" for line in lines if line[9:25].strip() == check]


def test_a_job_whose_places_are_in_three_clouds(folder, seaweed, gcs_server, desk):
    s3, gs = seaweed.new_bucket(), gcs_server.new_bucket()
    for name, data in MODEL_FILES.items():
        seaweed.client.put_object(Bucket=s3, Key=f"sd/{name}", Body=data)
    desk.hub.new_repo("datasets", "me/pictures", {"a.png": b"1", "metadata.jsonl": b"{}"})
    places = settings(
        model__source=f"s3://{s3}/sd", data__source="hf://me/pictures", checkpoint__to=f"s3://{s3}/runs/tiny",
        publish=f"[{{to: 'gs://{gs}/out'}}, {{to: 'hf://me/results'}}]",
    )  # fmt: skip
    environment = {**seaweed.environment, **gcs_server.environment, **desk.hub.environment}
    code, lines = doctor(folder, *places, environment=environment)
    assert code == 0, "\n".join(lines)
    assert any("can be listed: 9 files" in line for line in lines_of(lines, "model.source"))
    commit = desk.hub.commits("datasets", "me/pictures")[0].oid
    assert f"ok main is commit {commit[:12]}." in lines_of(lines, "data.source")
    assert f"ok s3://{s3}/runs/tiny can be written, and refuses to create what exists." in lines_of(lines, "checkpoint.to")
    assert f"ok gs://{gs}/out can be written." in lines_of(lines, "publish.0.to")
    told = "ok the token may write to me/results; it does not exist yet and would be made private."
    assert told in lines_of(lines, "publish.1.to")
    # What was tried is gone again, and nothing was made.
    left = {entry["Key"] for entry in seaweed.client.list_objects_v2(Bucket=s3)["Contents"]}
    assert left == {f"sd/{name}" for name in MODEL_FILES}
    assert ("models", "me/results") not in desk.hub.repositories
    secrets = (seaweed.secret_key, desk.hub.write_token)
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_who_may_nothing_is_told_so_place_by_place(folder, seaweed, desk):
    bucket = seaweed.new_bucket()
    desk.hub.new_repo("models", "me/open", {RECORD_NAME: b"{}"})
    places = settings(checkpoint__to=f"s3://{bucket}/run", publish="[{to: 'hf://me/open'}]")
    environment = {**desk.hub.environment, **seaweed.powerless_environment, "HF_TOKEN": desk.hub.read_token}
    code, lines = doctor(folder, *places, environment=environment)
    assert code == 77, "\n".join(lines)
    assert any(line.startswith("failed") for line in lines_of(lines, "checkpoint.to"))
    (denied,) = (line for line in lines_of(lines, "publish.0.to") if line.startswith("failed"))
    assert "may not write to repositories of me" in denied
    assert any(line.startswith("ok") for line in lines_of(lines, "model.source"))
    assert not [line for line in lines if seaweed.powerless_secret_key in line or desk.hub.read_token in line]


def test_a_bucket_that_is_not_there_is_66(folder, seaweed):
    code, lines = doctor(folder, *settings(checkpoint__to="s3://no-such-bucket-here/run"), environment=seaweed.environment)
    assert code == 66
    assert any(line.startswith("failed") and "no such bucket" in line for line in lines_of(lines, "checkpoint.to"))


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_is_74_and_the_process_ends(folder, seaweed, silent_server):
    places = settings(model__source="s3://bucket/sd", checkpoint__to="s3://bucket/run")
    environment = {**seaweed.environment, "AWS_ENDPOINT_URL_S3": silent_server}
    code, lines = doctor(folder, "--timeout", "1", *places, environment=environment)
    assert code == 74
    for check in ("model.source", "checkpoint.to"):
        assert [line for line in lines_of(lines, check) if line.startswith("failed no answer within 1 s")]
    assert any(line.startswith("ok") for line in lines_of(lines, "run.notice_s"))

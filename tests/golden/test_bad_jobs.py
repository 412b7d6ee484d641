"""Every bad job file beside its whole stderr."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sdjob.cli.main import main

FOLDER = Path(__file__).parent / "bad_jobs"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_enough():
    assert len(FILES) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_bad_job_file_is_told_all_its_mistakes(
    file: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(FOLDER)
    monkeypatch.delenv("SDJOB_TEST_UNSET", raising=False)
    assert main(["validate", file.name]) == 64
    told = capsys.readouterr().err
    assert "pydantic" not in told.lower()
    golden(file.with_suffix(".txt"), told)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_text_belongs_to_a_file(file: Path):
    assert file.with_suffix(".txt").is_file()
    assert {text.stem for text in FOLDER.glob("*.txt")} <= {other.stem for other in FILES}

"""Pasted command lines beside the job file that each becomes, or the whole stderr where it becomes none."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdjob.cli.main import main

FOLDER = Path(__file__).parent / "convert"
INPUTS = sorted(FOLDER.glob("*.txt"))
OPTIONS = "# sdjob convert "  # as the first line of an input


@pytest.fixture(autouse=True)
def somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A folder in which no name is a path, and a home that is the same everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for name in ("SDJOB_TEST_UNSET", "PICTURES", "MODEL_NAME", "MODEL", "SEED"):
        monkeypatch.delenv(name, raising=False)


def options_of(text: str) -> list[str]:
    first = text.splitlines()[0]
    return first.removeprefix(OPTIONS).split() if first.startswith(OPTIONS) else []


def converted(data: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    return main(["convert", *options_of(data.decode())])


@pytest.mark.parametrize("file", INPUTS, ids=lambda file: file.stem)
def test_a_command_line_becomes_a_job_file_or_an_error(
    file: Path,
    golden: Callable[[Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    code = converted(file.read_bytes(), monkeypatch)
    written = capsys.readouterr()
    assert (code, bool(written.out)) in {(0, True), (64, False)}
    golden(file.with_suffix(".yaml"), written.out)
    golden(file.with_suffix(".stderr"), written.err)
    if written.out:
        (tmp_path / "job.yaml").write_text(written.out, encoding="utf-8")
        assert main(["validate", "job.yaml"]) == 0, capsys.readouterr().err


def test_the_table_of_flags(golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main(["convert", "--flags"]) == 0
    golden(FOLDER / "flags.md", capsys.readouterr().out)


def test_every_golden_file_belongs_to_an_input():
    stems = {file.stem for file in INPUTS}
    assert {file.stem for ending in (".yaml", ".stderr") for file in FOLDER.glob(f"*{ending}")} <= stems
    assert len(stems) >= 70

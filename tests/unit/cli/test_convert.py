"""The ways in which a command line reaches `sdjob convert`."""

import io
import json
import sys
from pathlib import Path

import pytest

from sdjob.cli.main import main

WORDS = ["train_text_to_image_lora.py", "--pretrained_model_name_or_path", "a/b", "--train_data_dir=p", "--max_train_steps=5"]
TEXT = " ".join(WORDS)


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "--", *WORDS]) == 0
    return capsys.readouterr().out


def typed(text: str, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False):
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    monkeypatch.setattr(stdin, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize("arguments", [WORDS, ["--", TEXT], [TEXT], ["--devices=1", "--", *WORDS], ["--", "python", *WORDS]])
def test_as_arguments(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]):
    assert main(["convert", *arguments]) == 0
    assert capsys.readouterr().out == expected.replace(" 1 device; --devices says how many if there were more", " 1 device")


@pytest.mark.parametrize("arguments", [[], ["-"], ["--"], ["--", "-"]])
def test_from_stdin(arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    typed(TEXT, monkeypatch)
    assert main(["convert", *arguments]) == 0
    assert capsys.readouterr().out == expected


def test_nothing_is_awaited_from_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    typed(TEXT, monkeypatch, terminal=True)
    assert main(["convert"]) == 64
    assert "sdjob convert --help" in capsys.readouterr().err


def test_stdin_must_be_utf8(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode("utf-16"))))
    assert main(["convert"]) == 64
    assert "UTF-8" in capsys.readouterr().err


def test_a_folder_here_is_a_folder(expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "source: hf://a/b\n" in expected
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert main(["convert", "--", *WORDS]) == 0
    assert "source: a/b\n" in capsys.readouterr().out


def test_a_path_that_cannot_be_is_none(expected: str, capsys: pytest.CaptureFixture[str]):
    assert expected
    assert main(["convert", "--", *WORDS, "--pretrained_model_name_or_path", "x" * 5000]) == 64
    assert "names no owner on the Hub" in capsys.readouterr().err


def test_remarks_are_lines_or_events(capsys: pytest.CaptureFixture[str]):
    assert main(["convert", "--", *WORDS, "--cache_dir=x"]) == 0
    assert capsys.readouterr().err.startswith("sdjob: --cache_dir: ")
    assert main(["convert", "--log", "json", "--", *WORDS, "--cache_dir=x"]) == 0
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["level"]) == ("convert", "warning")
    assert event["message"].startswith("--cache_dir: ")


@pytest.mark.parametrize("option", ["--devices=0", "--pictures=-1", "--devices=two", "--no-such-option=1"])
def test_wrong_options(option: str, capsys: pytest.CaptureFixture[str]):
    assert main(["convert", option, "--", *WORDS]) == 64
    assert capsys.readouterr().out == ""

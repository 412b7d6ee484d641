"""Help texts, the JSON Schema and what `init` writes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sdjob.cli.main import main

HERE = Path(__file__).parent
LIGHT = ("validate", "schema", "init")


@pytest.fixture(autouse=True)
def width_of_the_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize(
    "verb",
    [
        "",
        *LIGHT,
        "convert",
        "plan",
        "run",
        "cache",
        "render",
        "submit",
        "status",
        "logs",
        "cancel",
        "list",
        "checkpoints",
        "export",
        "sample",
        "report",
        "doctor",
        "completion",
    ],
)
def test_help(verb: str, golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main([*([verb] if verb else []), "--help"]) == 0
    golden(HERE / "help" / f"{verb or 'sdjob'}.txt", capsys.readouterr().out)


def test_schema(golden: Callable[[Path, str], None], capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    golden(HERE / "job.schema.json", capsys.readouterr().out)


@pytest.mark.parametrize("template", ["lora", "full"])
def test_init(
    template: str,
    golden: Callable[[Path, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--template", template, "my-job.yaml"]) == 0
    assert main(["validate", "my-job.yaml"]) == 0
    golden(HERE / "templates" / f"{template}.yaml", (tmp_path / "my-job.yaml").read_text(encoding="utf-8"))
    assert "my-job.yaml: valid\n" in capsys.readouterr().out

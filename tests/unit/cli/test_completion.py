"""Completion scripts, tried out in a real bash as readline would."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sdjob.cli.completion import SHELLS, actions_of, kind_of
from sdjob.cli.main import VERBS, main, whole_parser

# What readline does on a TAB: sets COMP_WORDS and COMP_CWORD, calls the function that `complete -F` named, reads COMPREPLY.
PRESS_TAB = """
source ./script || exit 3
function_of_sdjob=$(complete -p sdjob | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"$function_of_sdjob"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script_for(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "script").write_text(script_for("bash", capsys))
    (tmp_path / "my-job.yaml").touch()
    (tmp_path / "my-run").mkdir()
    return tmp_path


def offered(*words: str, folder: Path) -> set[str]:
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", PRESS_TAB, "bash", *words],
        cwd=folder, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sdjob", "che"], {"checkpoints"}),
        (["sdjob", "completion", "z"], {"zsh"}),
        (["sdjob", "checkpoints", ""], {"list", "verify", "prune"}),
        (["sdjob", "checkpoints", "prune", "--k"], {"--keep"}),
        (["sdjob", "checkpoints", "list", "my"], {"my-run"}),
        (["sdjob", "export", "--format", ""], {"diffusers", "kohya"}),
        (["sdjob", "export", "my-run", "--to", "my"], {"my-run"}),
        (["sdjob", "--log", ""], {"auto", "json", "text"}),
        (["sdjob", "validate", "my"], {"my-job.yaml", "my-run"}),
        (["sdjob", "validate", "my-job.yaml", "my"], {"my-job.yaml", "my-run"}),
        (["sdjob", "run", "my-j"], {"my-job.yaml"}),
        (["sdjob", "run", "--se"], {"--set"}),
        (["sdjob", "sample", "my-j"], {"my-job.yaml"}),
        (["sdjob", "nothing-like-it"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(words: list[str], expected: set[str], folder: Path):
    assert offered(*words, folder=folder) == expected


def test_bash_completes_every_verb_and_every_flag_of_each(folder: Path):
    assert offered("sdjob", "", folder=folder) == set(VERBS)
    parser = whole_parser()
    verbs = next(action for action in parser._actions if action.dest == "verb").choices
    assert verbs is not None
    for name in VERBS:
        flags = {flag for action in verbs[name]._actions for flag in action.option_strings}
        assert {"--help", "--log"} <= flags
        assert offered("sdjob", name, "-", folder=folder) == flags


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_every_shell_names_every_verb(shell: str, capsys: pytest.CaptureFixture[str]):
    script = script_for(shell, capsys)
    assert {verb for verb in VERBS if verb not in script} == set()
    assert "take-over" in script


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_the_shells_of_this_machine_accept_their_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """bash is on every machine that runs these tests; the others where they are installed."""
    script = tmp_path / "script"
    script.write_text(script_for(shell, capsys))
    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


def test_what_takes_a_file_or_a_folder_is_known_by_its_name():
    kinds = {action.metavar or action.dest: kind_of(action) for action in actions_of(whole_parser())}
    assert (kinds["FILE"], kinds["DIR"], kinds["PLACE"]) == ("file", "folder", "folder")
    assert (kinds["file"], kinds["N"], kinds["shell"]) == ("file", None, None)


def test_a_shell_that_is_not_known_is_64(capsys: pytest.CaptureFixture[str]):
    assert main(["completion", "cmd.exe"]) == 64
    assert "choose from" in capsys.readouterr().err

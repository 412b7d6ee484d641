"""Pasted text is split as a shell splits it; bash itself says how. Nothing of it is executed."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.convert.paste import tidied
from sdjob.convert.script import script_commands
from sdjob.core.errors import UsageError

ENVIRONMENT = {"HOME": "/home/someone", "SPACED": "one  two", "EMPTY": ""}


def words_of(text: str) -> list[list[str]]:
    """The words of each command that begins with `show`."""
    commands = script_commands(tidied(text).text, environment=ENVIRONMENT)
    return [[word.text for word in command.words[1:]] for command in commands if command.words[0].text == "show"]


def words_of_bash(text: str, *, folder: Path) -> list[list[str]]:
    shell = shutil.which("bash")
    assert shell
    script = "show() { printf '%s\\0' \"$@\"; printf '\\1'; }\n" + text
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([shell, "-c", script], capture_output=True, cwd=folder, env=environment, check=True)
    return [[part.decode() for part in one.split(b"\0")[:-1]] for one in done.stdout.split(b"\1")[:-1]]


@pytest.mark.parametrize(
    "text",
    [
        "show a 'b c' \"d e\" f\\ g",
        "show a\"b\"'c'd \"\" ''",
        'show "$HOME/x" $HOME/y \'$HOME\' "\\$HOME" \\$HOME',
        'show "a\\"b" "a\\\\b" "a\\nb" "tail\\ "',
        "A=1\nshow $A ${A} ${A}b x$A",
        "export A=1 B='2 3'\nshow $A \"$B\" $B",
        'A=$SPACED; show $A "$A" pre$A-post',
        "A=' x  y '; show pre$A-post $A$A a$A",
        'show $EMPTY "$EMPTY" a$EMPTY end',
        "show ${NOT:-else} ${EMPTY:-else} ${HOME:-else}",
        "show a \\\n  b \\\n\tc",
        "show a # comment 'with quote\nshow b#not '#not' \"# not\"",
        "show a; show b && show c;\nshow e",
        "show a=1 --b=c,d:e@f%g+h~i ^ ! {} [x] @",
        "(show a; show b)",
        "show a | cat",
        "show 'two\nlines' \"and\ntwo\"",
        "A=1 B=2\nA=3\nshow $A$B",
        "show 'é — “x”' 2>&1",
        "A=x=y; show $A",
    ],
)
def test_words_are_bashs(text: str, tmp_path: Path):
    assert words_of(text) == words_of_bash(text, folder=tmp_path)


def test_redirections_are_no_words():
    text = "show a > /dev/null; show b 2>&1 3; show c >>out 2>>out; show d &> out; show e < in; show f 2> 'a b' g & show h>x"
    assert words_of(text) == [["a"], ["b", "3"], ["c"], ["d"], ["e"], ["f", "g"], ["h"]]


@given(st.lists(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])), min_size=1))
def test_quoted_words_come_back(words: list[str]):
    text = "show " + " ".join(shlex.quote(word) for word in words)
    commands = list(script_commands(text, environment={}))
    assert [word.text for word in commands[0].words[1:]] == words


def test_a_command_sees_the_variables_that_stand_before_it():
    (command,) = script_commands("A=1 B=2 run $A", environment={"B": "old", "C": "c"})
    assert [word.text for word in command.words] == ["run", "1"]
    assert command.environment == (("B", "2"),)


def test_a_variable_without_a_value_is_named_with_its_line():
    (command,) = script_commands("\nrun x$NOT", environment={})
    assert (command.words[1].line, command.words[1].unset) == (2, ("NOT",))


@pytest.mark.parametrize(
    "text", ["run $(touch made)", 'run "`touch made`"', "A=$(touch made)", "run <(touch made)", "run $((1+1))"]
)
def test_nothing_is_executed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="nothing is executed"):
        list(script_commands(tidied(text).text, environment={}))
    assert not list(tmp_path.iterdir())


def test_text_in_single_quotes_is_only_text():
    (command,) = script_commands("run '$(touch made) `x` $A'", environment={"A": "b"})
    assert command.words[1].text == "$(touch made) `x` $A"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run\nrun “a”", "line 2: \u201c is no quotation mark"),
        ("run a\\\n \u2013flag", "line 2: \u2013flag begins with \u2013"),
        ("run --a\u200bb", "U\\+200B"),
        ("run 'a\nb", "line 1: the quotation that begins with ' here never ends"),
        ("run $1", r"line 1: \$1, an argument"),
        ("run ${A%x}", "more than a variable's value"),
        ("run ${A:-$B}", "more than a variable's value"),
        ("cat <<EOF\nEOF", "here-documents"),
        ("A=(b c)", "arrays and functions"),
        ("if true; then run; fi", "'if' begins a construct"),
        (" \n\t\r\n", "the text is empty"),
        ("\ufeff", "the text is empty"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, told: str):
    with pytest.raises(UsageError, match=told):
        list(script_commands(tidied(text).text, environment={}))


@given(st.text(st.sampled_from("ab \t\n\\'\"$`{}()<>|&;#=-!*“\u2013\u200b~%"), max_size=30))
def test_any_text_is_read_or_refused(text: str):
    try:
        list(script_commands(tidied(text).text, environment={}))
    except UsageError:
        return


@pytest.mark.parametrize(
    ("text", "joined", "num_remarks"),
    [
        ("run \\ \n --a", "run \\\n --a", 1),
        ("run \\ # why\n --a", "run \\\n --a", 1),
        ("run\n\n# why\n--a", "run \\\n\\\n\\\n--a", 1),
        ("run \\\n--a", "run \\\n--a", 0),
        ("--a\n--b", "--a \\\n--b", 1),
        ("run\n-x\nother", "run \\\n-x\nother", 1),
        ("$ run \\\n> --a", "run \\\n--a", 0),
        ("> run", "> run", 0),
        ("!run", "run", 0),
        ("%env A=b c", 'export A="b c"', 0),
        ("%env A 'b'", "export A='b'", 0),
        ("%cd x", "", 0),
        ("(env) me@host:~/x$ run", "run", 0),
        ("root@host:/x# run", "run", 0),
        ("\ufeffrun\r\n-a\r\n", "run \\\n-a\n", 1),
    ],
)
def test_pastes_are_tidied_line_by_line(text: str, joined: str, num_remarks: int):
    pasted = tidied(text)
    assert (pasted.text, len(pasted.remarks)) == (joined, num_remarks)

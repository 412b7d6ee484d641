"""What reading a command line yields, whichever way it came."""

import re
from dataclasses import dataclass

from sdjob.core.errors import UsageError
from sdjob.spec.secrecy import looks_secret

# https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_10_02, rule 7: an assignment before a command
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Word:
    """One argument, as the shell would hand it over."""

    text: str
    line: int | None = None
    """Where it stands in a pasted script; None where the shell had split the command line already."""
    unset: tuple[str, ...] = ()
    """Variables in it that have no value."""


@dataclass(frozen=True)
class Command:
    """One simple command: its words, and the variables that were set for it and not used up in its words."""

    words: tuple[Word, ...]
    environment: tuple[tuple[str, str], ...] = ()


def shown(text: str) -> str:
    """A value for a message or a comment: on one line, not too long, and never a secret."""
    if looks_secret(text):
        return "'***'"
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return f"'{line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 3] + '...'}'"


def value_of(word: Word, *, what: str) -> str:
    """The word's text; UsageError where a variable in it has no value. `what` begins the sentence, as `--seed`."""
    if not word.unset:
        return word.text
    name = word.unset[0]
    raise UsageError(
        f"{what}: the variable {name} has no value.",
        where=None if word.line is None else f"line {word.line}",
        next_step=f"Paste the line that sets it too, as `export {name}=...`, or write the value itself.",
    )

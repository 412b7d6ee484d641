"""What is wrong with a job file: one sentence for each mistake, all mistakes at once."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdjob.core.errors import UsageError

Step = str | int
FieldPath = tuple[Step, ...]
"""The way from the top of the file to a value: ("publish", 0, "to")."""


@dataclass(frozen=True)
class Problem:
    """One mistake, where it stands, and what would be right."""

    source: str
    """The file's name, or the `--set` argument that brought the value in."""
    line: int | None
    path: str
    """The field's full name, as `publish.0.to`; empty where the text is not even YAML."""
    what: str
    allowed: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        named = f"{where}: {self.path}" if self.path else where
        parts = [self.what]
        parts += [self.allowed] if self.allowed else []
        parts += [f"did you mean '{self.nearest}'?"] if self.nearest else []
        return f"{named}: {'; '.join(parts)}"


class JobFileError(UsageError):
    """All mistakes of one job file; its text has one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Finding:
    """A mistake before its line is looked up."""

    path: FieldPath
    what: str
    allowed: str = ""
    nearest: str | None = None
    reads: tuple[FieldPath, ...] = ()
    """Other fields that the verdict rests on: it is dropped where one of them is itself wrong."""


def dotted(path: FieldPath) -> str:
    return ".".join(str(step) for step in path)


def split_path(text: str) -> FieldPath:
    return tuple(int(step) if step.isdecimal() else step for step in text.split("."))


def at(text: str) -> FieldPath:
    """`at("train.steps")`: a field's path, for rules."""
    return split_path(text)


def nearest_name(name: str, *, among: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar of the allowed names, where one is similar enough to have been meant."""
    close = difflib.get_close_matches(name.lower(), list(among), n=1, cutoff=cutoff)
    return close[0] if close else None


def listed(names: Iterable[str]) -> str:
    return f"allowed: {', '.join(names)}"

"""What a deliberate breakage is: one small edit of one file, with the tests that must notice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""
    """Why no test can notice, where that is so."""


def all_of(file: str, tests: tuple[str, ...], *mutants: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(name, file, old, new, tests, *survives) for name, old, new, *survives in mutants]

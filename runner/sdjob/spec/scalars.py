"""Plain YAML scalars by the core schema of YAML 1.2: https://yaml.org/spec/1.2.2/#103-core-schema

PyYAML follows YAML 1.1, where `1e-4` is a string, `no` is false, 012 is ten and 1:30 is ninety.
"""

import re
from collections.abc import Callable

Scalar = str | int | float | bool | None

LARGEST_EXACT = 2**53  # floats beyond it no longer tell neighbouring whole numbers apart
MOST_DIGITS = 40

NULL = re.compile(r"(null|Null|NULL|~|)")
BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)")
DECIMAL = re.compile(r"[-+]?[0-9]+")
OCTAL = re.compile(r"0o[0-7]+")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
NOT_A_NUMBER = re.compile(r"\.(nan|NaN|NAN)")


def whole_if_exact(text: str) -> int | float:
    """`1e4` counts as the whole number that it is, so that `steps: 1e4` can be written."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < LARGEST_EXACT else number


def infinite(text: str) -> float:
    return float("-inf" if text.startswith("-") else "inf")


READERS: tuple[tuple[re.Pattern[str], Callable[[str], Scalar]], ...] = (
    (NULL, lambda _: None),
    (BOOL, lambda text: text.lower() == "true"),
    (DECIMAL, int),
    (OCTAL, lambda text: int(text, 8)),
    (HEXADECIMAL, lambda text: int(text, 16)),
    (FLOAT, whole_if_exact),
    (INFINITE, infinite),
    (NOT_A_NUMBER, lambda _: float("nan")),
)


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar. Numbers too long to be meant stay text, which no number's field accepts."""
    for pattern, read in READERS:
        if pattern.fullmatch(text):
            return text if len(text) > MOST_DIGITS and read is not READERS[0][1] else read(text)
    return text

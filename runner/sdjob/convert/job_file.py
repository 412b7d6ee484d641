"""Settings to the text of a job file as a person would write it, with numbers that all YAML readers agree on."""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any, cast

import yaml

from sdjob.convert.request import Note, Setting
from sdjob.spec.load import PlainDumper

COMMENT_COLUMN = 32
WIDEST = 120
SMALLEST_PLAIN = 1e-3  # below it and from LARGEST_PLAIN on a float is spelled with an exponent
LARGEST_PLAIN = 1e6
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./$][A-Za-z0-9_./:@${}~+-]*")


def job_text(settings: Sequence[Setting], *, notes: Sequence[Note], file: str) -> str:
    lines = [
        f"# From a command line of diffusers' {file}, by `sdjob convert`.",
        "# Check it with `sdjob validate FILE`, start it with `sdjob run FILE`; the same command resumes it.",
        *head_notes(notes),
        "apiVersion: sdjob/v1",
    ]
    for section, group in groupby(settings, key=lambda setting: setting.path.partition(".")[0]):
        members = list(group)
        lines += [
            *([""] if "." in members[0].path or isinstance(members[0].value, list) else []),
            *section_lines(section, members),
        ]
    return "\n".join(lines) + "\n"


def head_notes(notes: Sequence[Note]) -> Iterator[str]:
    if notes:
        yield "#"
        yield "# Of the command this file does not say, or says otherwise:"
    for note in notes:
        yield from (f"# {line}" for line in wrapped(str(note), width=WIDEST - 2, first="- ", rest="  "))


def section_lines(section: str, members: Sequence[Setting]) -> Iterator[str]:
    if len(members) == 1 and members[0].path == section:
        yield from field_lines(members[0], name=section, indent=0)
        return
    yield f"{section}:"
    opened = ""
    for setting in members:
        *parents, name = setting.path.split(".")[1:]
        parent = ".".join(parents)
        if parent and parent != opened:
            yield f"  {parent}:"
        opened = parent
        yield from field_lines(setting, name=name, indent=4 if parent else 2)


def field_lines(setting: Setting, *, name: str, indent: int) -> Iterator[str]:
    space, comment = " " * indent, one_line(setting.comment)
    value = setting.value
    first, *more = [f"{name}: {flow(value)}"] if is_flat(value) else [f"{name}:", *items(value)]
    inline = f"{space}{first}".ljust(COMMENT_COLUMN) + f"  # {comment}"
    if comment and (setting.above or len(inline) > WIDEST):
        yield from (f"{space}# {line}" for line in wrapped(comment, width=WIDEST - indent - 2))
    elif comment:
        first = inline[indent:]
    yield f"{space}{first}"
    yield from (f"{space}{line}" for line in more)


def is_flat(value: Any) -> bool:
    return not isinstance(value, list) or all(isinstance(one, float | int) for one in cast("list[Any]", value)) or is_short(value)


def is_short(value: Any) -> bool:
    return all(
        isinstance(one, str) and PLAIN_TEXT.fullmatch(one) and not set(one) & set("{}") for one in cast("list[Any]", value)
    )


def items(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict):
            pairs = [f"{key}: {scalar(one)}" for key, one in cast("dict[str, Any]", value).items()]
            yield f"  - {pairs[0]}"
            yield from (f"    {pair}" for pair in pairs[1:])
        else:
            yield f"  - {quoted(value)}"


def flow(value: Any) -> str:
    return "[" + ", ".join(scalar(one) for one in cast("list[Any]", value)) + "]" if isinstance(value, list) else scalar(value)


def scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return number(value)
        case str():
            return plain_or_quoted(value)
        case _:
            return str(value)


def number(value: float) -> str:
    """`1.0e-05`, which YAML 1.1 and 1.2 read as the same number: with a point, and a sign in the exponent."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if value == 0 or SMALLEST_PLAIN <= abs(value) < LARGEST_PLAIN:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) - 1 + int(exponent)
    fraction = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"


def plain_or_quoted(text: str) -> str:
    """Plain where both versions of YAML read it back as this text."""
    if PLAIN_TEXT.fullmatch(text) and not text.endswith(":"):
        dumped = yaml.dump(text, Dumper=PlainDumper, width=math.inf)
        if dumped.splitlines()[0] == text:
            return text
    return quoted(text)


def quoted(text: str) -> str:
    return f'"{"".join(escaped(letter) for letter in text)}"'


def escaped(letter: str) -> str:
    """https://yaml.org/spec/1.2.2/#57-escaped-characters"""
    if letter in ESCAPES:
        return ESCAPES[letter]
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def one_line(text: str) -> str:
    """A comment ends with its line, whatever stands in a value that it quotes."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def wrapped(text: str, *, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        one_line(text), width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )

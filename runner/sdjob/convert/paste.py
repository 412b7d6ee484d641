"""Text as people copy it out of terminals, notebooks and web pages, made into lines that a shell could read.

The number of lines stays, so that messages can name them.
"""

import re
from dataclasses import dataclass, field

from sdjob.core.errors import UsageError

# A terminal's: `user@host:~/work$ command`, with an environment's name before it; and the one of continued lines.
PROMPTS = (
    re.compile(r"(\([\w.-]+\) )?[\w.-]+@[\w.-]+:[^\s$#]*[$#] +"),
    re.compile(r"(\([\w.-]+\) ?)?[$%\u276f\u279c] +"),
    re.compile(r"> +(?=--)"),
    re.compile(r"!{1,2}[ \t]*"),
)
# https://ipython.readthedocs.io/en/stable/interactive/magics.html: `!command`, `%env NAME=value`, `%cd folder`, `%%bash`
NOTEBOOK_VARIABLE = re.compile(r"%(?:set_env|env)[ \t]+([A-Za-z_]\w*)(?:=|[ \t]+)(.*)")
NOTEBOOK_MAGIC = re.compile(r"%{1,2}[A-Za-z]")
# A backslash that is not the line's last character continues nothing, though that is what was meant.
SPOILT_CONTINUATION = re.compile(r"\\[^\S\n]+(#.*)?$")
BLANK_OR_COMMENT = re.compile(r"\s*(#.*)?")
FLAG_LINE = re.compile(r"\s*--?[A-Za-z]")


@dataclass
class Pasted:
    """Lines for the shell's grammar, and what had to be read kindly."""

    lines: list[str]
    remarks: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def tidied(text: str) -> Pasted:
    """UsageError where there is nothing to read."""
    if not text.strip("\ufeff \t\r\n"):
        raise UsageError("there is no command line to convert: the text is empty.", next_step="See `sdjob convert --help`.")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    pasted = Pasted([without_prompt(line) for line in lines])
    for number in range(len(pasted.lines)):
        mend_continuation(pasted, number)
        join_flags(pasted, number)
    return pasted


def without_prompt(line: str) -> str:
    """The command behind a terminal's or a notebook's prompt."""
    rest = line.lstrip()
    if match := NOTEBOOK_VARIABLE.fullmatch(rest):
        return f"export {match[1]}={in_quotes(match[2])}"
    if NOTEBOOK_MAGIC.match(rest):
        return ""
    matches = (prompt.match(rest) for prompt in PROMPTS)
    return next((rest[match.end() :] for match in matches if match), line)


def in_quotes(value: str) -> str:
    """%env takes the rest of its line as it is; `$` still stands for a variable there."""
    value = value.strip()
    return value if value[:1] in {'"', "'"} else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mend_continuation(pasted: Pasted, number: int) -> None:
    line = pasted.lines[number]
    if match := SPOILT_CONTINUATION.search(line):
        behind = "a comment" if match[1] else "a space"
        pasted.lines[number] = line[: match.start()] + "\\"
        pasted.remarks.append(f"line {number + 1}: {behind} stands behind the backslash; read as if it did not.")


def join_flags(pasted: Pasted, number: int) -> None:
    """No command begins with a hyphen: the lines above have lost their backslashes on the way."""
    lines = pasted.lines
    if not FLAG_LINE.match(lines[number]) or number == 0 or lines[number - 1].endswith("\\"):
        return
    above = number - 1
    while above >= 0 and BLANK_OR_COMMENT.fullmatch(lines[above]):
        above -= 1
    if above >= 0:
        lines[above] = lines[above].removesuffix("\\") + " \\"
        lines[above + 1 : number] = ["\\"] * (number - above - 1)
        pasted.remarks.append(f"line {number + 1} begins with a flag; read as the continuation of line {above + 1}.")

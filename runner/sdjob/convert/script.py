"""A pasted script to its commands, with variables filled in from the script itself and from the environment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from sdjob.convert.shell import Piece, RawWord, simple_commands
from sdjob.convert.words import ASSIGNMENT, Command, Word
from sdjob.core.errors import UsageError

# Commands whose arguments are assignments.
SETTERS = ("export", "declare", "typeset", "local", "readonly")
GRAMMAR = ("for", "while", "until", "if", "case", "function", "select")

Values = Mapping[str, str | None]
"""What variables hold; None where one was set to what has no value."""


def script_commands(text: str, *, environment: Mapping[str, str]) -> Iterator[Command]:
    """The commands in their order; a variable has the value that it was last given above, or on the command itself."""
    pasted: dict[str, str | None] = {}
    for words in simple_commands(text):
        if not words:
            continue
        first = literal(words[0])
        if first in GRAMMAR:
            raise UsageError(
                f"'{first}' begins a construct of the shell's, which is not read.",
                where=f"line {words[0].line}",
                next_step="Paste the training command alone, with the values written out.",
            )
        assigning = list(takewhile(is_assignment, words))
        rest = words[len(assigning) :]
        own = assigned(assigning, known={**environment, **pasted})
        if not rest:
            pasted |= own
        elif literal(rest[0]) in SETTERS:
            pasted |= assigned(filter(is_assignment, rest[1:]), known={**environment, **pasted})
        else:
            yield command(rest, known={**environment, **pasted, **own}, pasted={**pasted, **own})


def command(words: Sequence[RawWord], *, known: Values, pasted: Values) -> Command:
    used = {piece.variable for word in words for piece in word.pieces}
    others = tuple((name, value) for name, value in pasted.items() if name not in used and value is not None)
    return Command(tuple(word for raw in words for word in expanded(raw, known=known)), others)


def is_assignment(word: RawWord) -> bool:
    return not word.pieces[0].quoted and ASSIGNMENT.match(word.pieces[0].text) is not None


def assigned(words: Iterable[RawWord], *, known: Values) -> dict[str, str | None]:
    """Of words such as NAME=value."""
    found: dict[str, str | None] = {}
    for word in words:
        whole = joined(word, known={**known, **found})
        name, _, text = whole.text.partition("=")
        found[name] = None if whole.unset else text
    return found


def literal(word: RawWord) -> str:
    return "".join(piece.text for piece in word.pieces)


def joined(word: RawWord, *, known: Values) -> Word:
    values = [(piece, value(piece, known=known)) for piece in word.pieces]
    unset = tuple(str(piece.variable) for piece, text in values if text is None)
    return Word("".join(text or "" for _, text in values), word.line, unset)


def value(piece: Piece, *, known: Values) -> str | None:
    if piece.variable is None:
        return piece.text
    held = known.get(piece.variable)
    return piece.otherwise if piece.otherwise is not None and not held else held


def expanded(word: RawWord, *, known: Values) -> Iterator[Word]:
    """A word as the shell passes it on: the value of an unquoted variable is split at its spaces."""
    parts: list[list[Piece]] = [[]]
    for piece in word.pieces:
        text = value(piece, known=known)
        if piece.variable is None or piece.quoted or text is None:
            parts[-1].append(piece)
            continue
        fields = text.split()
        if text[:1].isspace():
            parts.append([])
        for number, one in enumerate(fields):
            parts += [[]] if number else []
            parts[-1].append(Piece(one, quoted=True))
        if fields and text[-1:].isspace():
            parts.append([])
    yield from (joined(RawWord(tuple(part), word.line), known=known) for part in parts if part)

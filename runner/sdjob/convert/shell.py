"""The part of the shell's grammar that command lines are pasted in: text to words with their variables still in them.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html (quoting 2.2, tokens 2.3, parameters 2.6.2). Nothing is
executed: what would run a command to fill in its output is an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdjob.core.errors import UsageError

TYPOGRAPHIC_QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2033\u2032"
LONG_DASHES = "\u2013\u2014\u2212\u2010\u2011\u2012"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\xad"


@dataclass(frozen=True)
class Piece:
    """A stretch of a word: text, or a variable with what stands in where it has no value."""

    text: str
    quoted: bool
    variable: str | None = None
    otherwise: str | None = None


@dataclass(frozen=True)
class RawWord:
    pieces: tuple[Piece, ...]
    line: int


@dataclass
class Reader:
    """Where the reading stands. `pieces` is the word that is being put together; None between words."""

    text: str
    position: int = 0
    pieces: list[Piece] | None = None
    words: list[RawWord] = field(default_factory=list[RawWord])
    skip_next_word: bool = False
    word_line: int = 1

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1

    def add(self, *pieces: Piece) -> None:
        if self.pieces is None:
            self.pieces, self.word_line = [], self.line
        self.pieces.extend(pieces)

    def end_word(self) -> None:
        if self.pieces is not None and not self.skip_next_word:
            self.words.append(RawWord(tuple(self.pieces), self.word_line))
        self.skip_next_word = self.skip_next_word and self.pieces is None
        self.pieces = None

    def error(self, what: str, *, next_step: str) -> UsageError:
        return UsageError(what, where=f"line {self.line}", next_step=next_step)


# Tried in this order at each position outside quotes.
TOKEN = re.compile(
    r"""
      (?P<gap>       (?:[^\S\n]|\\\n|\\\Z)+ )
    | (?P<comment>   (?<!\S)\#[^\n]* )
    | (?P<end>       \n|&&|\|\|?|;|&(?!>)|[()] )
    | (?P<redirect>  (?:\d+|&)?(?:>>|>\||<>|>|<(?!<))(?P<target>&[\d-]+)?(?!\() )
    | (?P<single>    '[^']*' )
    | (?P<double>    "(?:[^"\\]|\\.)*" )
    | (?P<command>   \$\(|`|[<>]\(|<< )
    | (?P<variable>  \$(?:[A-Za-z_]\w*|\{[^}\n]*\}) )
    | (?P<argument>  \$[\d@*\#?$!'-] )
    | (?P<dollar>    \$(?=["\s]|\Z)|\$ )
    | (?P<escaped>   \\. )
    | (?P<open>      ['"] )
    | (?P<plain>     [^\s'"\\$`|&;()<>]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
IN_DOUBLE_QUOTES = re.compile(
    r"""
      (?P<joined>    \\\n )
    | (?P<escaped>   \\[$`"\\] )
    | (?P<command>   \$\(|` )
    | (?P<variable>  \$(?:[A-Za-z_]\w*|\{[^}\n]*\}) )
    | (?P<argument>  \$[\d@*\#?$!-] )
    | (?P<plain>     [^$`\\]+|\$|\\ )
    """,
    re.VERBOSE | re.DOTALL,
)
BRACED = re.compile(r"([A-Za-z_]\w*)(?::?-(.*))?", re.DOTALL)


def simple_commands(text: str) -> Iterator[list[RawWord]]:
    """The simple commands of a script, without redirections and comments; UsageError with the line where it cannot be read."""
    reader = Reader(text)
    while reader.position < len(text):
        match = TOKEN.match(text, reader.position)
        if match is None or match.lastgroup is None:
            raise reader.error(f"{text[reader.position]!r} cannot be read here.", next_step="Paste the command line alone.")
        if read_token(reader, match):
            yield reader.words
            reader.words = []
        reader.position = match.end()
    reader.end_word()
    yield reader.words


def read_token(reader: Reader, match: re.Match[str]) -> bool:
    """Whether the token ends a command."""
    kind, spelled = "redirect" if match["redirect"] else str(match.lastgroup), match[0]
    match kind:
        case "gap" | "comment":
            reader.end_word()
        case "end":
            if spelled == "(" and reader.pieces is not None:
                raise reader.error(
                    "arrays and functions are not read.", next_step="Paste the command line with its flags written out."
                )
            reader.end_word()
        case "redirect":
            reader.end_word()
            reader.skip_next_word = match["target"] is None
        case "double":
            reader.add(Piece("", quoted=True), *double_quoted(reader, spelled[1:-1]))
        case _:
            reader.add(*piece_of(reader, kind, spelled=spelled, quoted=False))
    return kind == "end"


def double_quoted(reader: Reader, inside: str) -> Iterator[Piece]:
    for match in IN_DOUBLE_QUOTES.finditer(inside):
        yield from piece_of(reader, str(match.lastgroup), spelled=match[0], quoted=True)


def piece_of(reader: Reader, kind: str, *, spelled: str, quoted: bool) -> Iterator[Piece]:
    match kind:
        case "plain":
            yield Piece(spelled if quoted else plain(reader, spelled), quoted=quoted)
        case "single":
            yield Piece(spelled[1:-1], quoted=True)
        case "escaped":
            yield Piece(spelled[1:], quoted=True)
        case "variable":
            yield variable(reader, spelled, quoted=quoted)
        case "joined":
            return
        case "dollar":
            yield Piece("$", quoted=True)
        case _:
            raise unreadable(reader, kind, spelled=spelled)


def variable(reader: Reader, spelled: str, *, quoted: bool) -> Piece:
    inner = spelled[2:-1] if spelled.startswith("${") else spelled[1:]
    match = BRACED.fullmatch(inner)
    if match is None or set(match[2] or "") & {"$", "`"}:
        raise reader.error(f"{spelled} is more than a variable's value.", next_step="Write the value itself.")
    return Piece("", quoted=quoted, variable=match[1], otherwise=match[2])


def plain(reader: Reader, spelled: str) -> str:
    """Unquoted text, in which typography is what a web page or a word processor has made of quotes and hyphens."""
    for letter in spelled:
        if letter in TYPOGRAPHIC_QUOTES:
            raise reader.error(
                f"{letter} is no quotation mark of the shell: a web page or a word processor has made it of one.",
                next_step="Write \" or ' instead.",
            )
        if letter in INVISIBLE:
            raise reader.error(
                f"{spelled.replace(letter, '?')} holds an invisible character (U+{ord(letter):04X}, shown as ?).",
                next_step="Type the word anew.",
            )
    if spelled[0] in LONG_DASHES and reader.pieces is None:
        raise reader.error(f"{spelled} begins with {spelled[0]}, a long dash, and no flag does.", next_step="Write -- instead.")
    return spelled


def unreadable(reader: Reader, kind: str, *, spelled: str) -> UsageError:
    if kind == "command" and spelled == "<<":
        return reader.error("here-documents (<<) are not read.", next_step="Paste the command line without them.")
    if kind == "command":
        return reader.error(
            f"{spelled} would run a command, and nothing is executed here.", next_step="Write its result instead."
        )
    if kind == "argument":
        what = "a quotation by $'...'" if spelled == "$'" else f"{spelled}, an argument or state of the script,"
        return reader.error(f"{what} is not read.", next_step="Write the value itself.")
    return reader.error(f"the quotation that begins with {spelled} here never ends.", next_step=f"Put the closing {spelled}.")

"""The command line's own rules: wrong arguments end with exit 64, never with argparse's 2."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Never

from sdjob import __version__
from sdjob.core.errors import UsageError

LOG_MODES = ("auto", "json", "text")
LOG_HELP = "how progress is told on stderr: text, one JSON line an event, or (auto) text on a terminal and JSON elsewhere"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UsageErrors."""

    def error(self, message: str) -> Never:
        raise UsageError(f"{message}.", next_step=f"See `{self.prog} --help`.")


def new_parser(verbs: Mapping[str, str]) -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser of the whole command, and of each verb; `verbs` maps names to one line of help."""
    parser = Parser(prog="sdjob", description="One YAML file fine-tunes Stable Diffusion anywhere.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"sdjob {__version__}")
    parser.add_argument("--log", choices=LOG_MODES, default="auto", help=LOG_HELP)
    # The same option behind the verb, where it must not reset what stood before the verb.
    shared = Parser(add_help=False)
    shared.add_argument("--log", choices=LOG_MODES, default=argparse.SUPPRESS, help=LOG_HELP)
    subparsers = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    return parser, {
        name: subparsers.add_parser(name, help=line, description=capitalised(line), parents=[shared], allow_abbrev=False)
        for name, line in verbs.items()
    }


def capitalised(line: str) -> str:
    return line[:1].upper() + line[1:] + "."


def chosen_verb(arguments: Sequence[str], *, verbs: Mapping[str, object]) -> str | None:
    """The verb among the arguments, None where there is none; UsageError where it is misspelled."""
    words = iter(arguments)
    for word in words:
        if word == "--log":
            next(words, None)
        elif not word.startswith("-"):
            if word not in verbs:
                raise unknown_verb(word, verbs=verbs)
            return word
    return None


def unknown_verb(word: str, *, verbs: Mapping[str, object]) -> UsageError:
    close = difflib.get_close_matches(word, list(verbs), n=1)
    hint = f"did you mean '{close[0]}'?" if close else "See `sdjob --help`."
    return UsageError(f"there is no command '{word}'; allowed: {', '.join(verbs)};", next_step=hint)

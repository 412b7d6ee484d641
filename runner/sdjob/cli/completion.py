"""`sdjob completion SHELL`: a script on stdout by which the shell completes sdjob's verbs, flags, choices and files."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sdjob.core.log import Log

SHELLS = ("bash", "zsh", "fish", "tcsh")
EPILOG = (
    'bash and zsh: `eval "$(sdjob completion bash)"`, in ~/.bashrc or (below compinit) ~/.zshrc. fish: `sdjob completion fish | '
    "source`, in ~/.config/fish/config.fish. tcsh: write the script to a file and source that in ~/.tcshrc."
)
# What stands in the help as the name of an argument says what it takes; a place may be a folder of this machine.
FILES, FOLDERS = {"FILE", "FILE-or-PLACE"}, {"DIR", "PLACE"}


@dataclass(frozen=True)
class Completion:
    """The verb, for a command whose other verbs it does not know."""

    whole_parser: Callable[[], ArgumentParser]
    """Makes the parser of a command line with the arguments of all verbs."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")
        parser.epilog = EPILOG

    def execute(self, args: Namespace, *, log: Log) -> int:  # noqa: ARG002  every verb is called alike
        import shtab

        parser = self.whole_parser()
        for action in actions_of(parser):
            if kind := kind_of(action):
                cast("Any", action).complete = shtab.FILE if kind == "file" else shtab.DIRECTORY
        print(shtab.complete(parser, shell=args.shell))
        return 0


def actions_of(parser: ArgumentParser) -> Iterator[Action]:
    """Every argument of a parser and of its verbs' parsers. argparse has no public list of them."""
    for action in cast("list[Action]", cast("Any", parser)._actions):
        yield action
        verbs: object = action.choices
        for below in cast("dict[str, object]", verbs).values() if isinstance(verbs, dict) else ():
            if isinstance(below, ArgumentParser):
                yield from actions_of(below)


def kind_of(action: Action) -> str | None:
    if action.choices is not None:
        return None
    if action.metavar in FOLDERS:
        return "folder"
    return "file" if action.metavar in FILES or action.type is Path else None

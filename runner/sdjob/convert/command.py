"""The one training command among the commands of a paste: which script, what stands before it, and its arguments."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from sdjob.convert.flags import FILES, Script
from sdjob.convert.words import ASSIGNMENT, Command, Word, shown
from sdjob.core.errors import UsageError
from sdjob.spec.problems import listed, nearest_name

Launcher = Literal["accelerate", "torchrun", "python"]

LAUNCHERS: dict[str, Launcher] = {"accelerate": "accelerate", "accelerate-launch": "accelerate", "torchrun": "torchrun"}
# `python -m MODULE`
MODULES: dict[str, Launcher] = {
    "accelerate.commands.launch": "accelerate",
    "accelerate.commands.accelerate_cli": "accelerate",
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
}
UNREAD_LAUNCHERS = ("deepspeed", "mpirun", "mpiexec", "horovodrun")
PYTHON = re.compile(r"i?python[\d.]*")
# Commands that run the command behind them.
WRAPPERS = (
    "nohup",
    "time",
    "exec",
    "sudo",
    "env",
    "nice",
    "ionice",
    "stdbuf",
    "command",
    "srun",
    "uv",
    "poetry",
    "pipenv",
    "conda",
)
MODULE_FLAGS = ("-m", "--module")


@dataclass(frozen=True)
class TrainingCommand:
    script: Script
    launcher: Launcher
    launch_words: tuple[Word, ...]
    """Between the launcher's name and the script."""
    arguments: tuple[Word, ...]
    """Behind the script."""
    environment: tuple[tuple[str, str], ...]
    """Variables that were set for the command, those left out that only its words use."""


@dataclass(frozen=True)
class PythonRun:
    """A command that runs a Python file or module of whatever name."""

    program: Word
    before: tuple[Word, ...]
    """The launcher and its words; none where the file is the command itself."""
    arguments: tuple[Word, ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def script(self) -> Script | None:
        return next((script for script, file in FILES.items() if stem(self.program.text) == stem(file)), None)


def training_command(commands: Iterable[Command]) -> TrainingCommand:
    """UsageError where there is none, more than one, or one of another script."""
    runs = [run for run in map(python_run, commands) if run]
    known = [run for run in runs if run.script]
    if len(known) > 1:
        lines = " and ".join(str(run.program.line) for run in known)
        raise UsageError(
            f"there are {len(known)} training commands (in lines {lines}), and a job file is one.",
            next_step="Convert each alone.",
        )
    if not known:
        raise no_command(runs)
    run = known[0]
    launcher, launch_words = launcher_of(run.before)
    assert run.script
    return TrainingCommand(run.script, launcher, launch_words, run.arguments, run.environment)


def no_command(runs: Sequence[PythonRun]) -> UsageError:
    allowed = listed(FILES.values())
    if not runs:
        return UsageError(
            f"there is no command line of a training script; {allowed}.",
            next_step="As in `sdjob convert -- accelerate launch train_text_to_image_lora.py --flag ...`.",
        )
    file = PurePosixPath(runs[-1].program.text).name
    near = nearest_name(file, among=FILES.values(), cutoff=0.9)
    return UsageError(
        f"{shown(file)} is not a script that convert reads; {allowed}" + (f"; did you mean '{near}'?" if near else ".")
    )


def python_run(command: Command) -> PythonRun | None:
    words = command.words
    start = first_program(words)
    if start is None:
        return None
    program = program_position(words, start)
    if program is None:
        return None
    matches = (ASSIGNMENT.fullmatch(word.text) for word in words[:start])
    own = tuple((match[1], match[2]) for match in matches if match)
    return PythonRun(words[program], words[start:program], words[program + 1 :], (*command.environment, *own))


def first_program(words: Sequence[Word]) -> int | None:
    """Where the launcher stands, or the script that is run by its own name."""
    wrapped = False
    for index, word in enumerate(words):
        name = PurePosixPath(word.text).name
        if name in LAUNCHERS or name in UNREAD_LAUNCHERS or PYTHON.fullmatch(name) or is_file(word):
            return index
        wrapped = wrapped or name in WRAPPERS
        if not wrapped and not ASSIGNMENT.fullmatch(word.text):
            return None
    return None


def program_position(words: Sequence[Word], start: int) -> int | None:
    for index in range(start, len(words)):
        before = words[index - 1].text if index > start else ""
        named = stem(words[index].text) in {stem(file) for file in FILES.values()}
        is_module = before in MODULE_FLAGS and words[index].text not in MODULES and not words[index].text.startswith("-")
        if is_file(words[index]) or named or is_module:
            return index
    return None


def launcher_of(before: Sequence[Word]) -> tuple[Launcher, tuple[Word, ...]]:
    """Which launcher, and its own words."""
    if not before:
        return "python", ()
    name = PurePosixPath(before[0].text).name
    if name in UNREAD_LAUNCHERS:
        raise UsageError(f"the launcher {name} is not read; {listed(['accelerate launch', 'torchrun', 'python'])}.")
    launcher, rest = LAUNCHERS.get(name, "python"), list(before[1:])
    modules = [index for index, word in enumerate(rest) if word.text in MODULES]
    if launcher == "python" and modules:
        launcher, rest = MODULES[rest[modules[0]].text], rest[modules[0] + 1 :]
    if launcher == "accelerate" and rest and rest[0].text == "launch":
        rest = rest[1:]
    return launcher, tuple(word for word in rest if word.text not in MODULE_FLAGS)


def is_file(word: Word) -> bool:
    return word.text.endswith(".py") and not word.text.startswith("-")


def stem(name: str) -> str:
    """`train` of scripts/train.py and of the module scripts.train."""
    return PurePosixPath(name.removesuffix(".py")).name.rpartition(".")[2]

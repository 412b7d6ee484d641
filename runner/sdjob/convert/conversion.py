"""The table of contents: a command line becomes a job file that is known to be valid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdjob.convert import optimizing, output, sources, training
from sdjob.convert.arguments import read_arguments
from sdjob.convert.command import TrainingCommand, training_command
from sdjob.convert.flags import FILES
from sdjob.convert.job_file import job_text
from sdjob.convert.launch import PRECISION_VARIABLE, launch_of
from sdjob.convert.paste import tidied
from sdjob.convert.request import Answer, Note, Request, Setting
from sdjob.convert.script import script_commands
from sdjob.convert.words import Command, Word
from sdjob.core.errors import UsageError
from sdjob.spec.load import job_from_text
from sdjob.spec.mend import mended
from sdjob.spec.problems import JobFileError, Problem

RULES: tuple[Callable[[Request], Iterator[Answer]], ...] = (
    sources.model,
    sources.data,
    training.train,
    optimizing.optimizer,
    optimizing.schedule,
    training.more_training,
    output.validation,
    output.checkpoint,
    output.publish,
    output.track,
    output.run,
)


@dataclass(frozen=True)
class Circumstances:
    """What the conversion knows beside the command line."""

    environment: Mapping[str, str]
    is_folder_here: Callable[[str], bool]
    num_devices: int | None = None
    num_pictures: int | None = None


@dataclass(frozen=True)
class Converted:
    job_file: str
    remarks: tuple[str, ...]
    """How the paste was read, and what of the command has no equal: a line each."""


def convert_text(text: str, *, circumstances: Circumstances) -> Converted:
    """A pasted script; UsageError where it cannot be read, or asks for what no job can say."""
    pasted = tidied(text)
    commands = list(script_commands(pasted.text, environment=circumstances.environment))
    converted = convert_command(training_command(commands), circumstances=circumstances)
    return replace(converted, remarks=(*pasted.remarks, *converted.remarks))


def convert_words(words: Sequence[str], *, circumstances: Circumstances) -> Converted:
    """A command line that a shell has split already; one that was quoted as a whole is read as a script."""
    if len(words) == 1 and any(letter.isspace() for letter in words[0]):
        return convert_text(words[0], circumstances=circumstances)
    command = Command(tuple(Word(word) for word in words))
    return convert_command(training_command([command]), circumstances=circumstances)


def convert_command(command: TrainingCommand, *, circumstances: Circumstances) -> Converted:
    request = Request(
        script=command.script,
        given=read_arguments(command.arguments, script=command.script),
        launch=launch_of(command),
        uses_accelerate=command.launcher == "accelerate",
        is_folder_here=circumstances.is_folder_here,
        num_devices=circumstances.num_devices,
        num_dataset_pictures=circumstances.num_pictures,
    )
    answers = [answer for rule in RULES for answer in rule(request)]
    notes = [*unmapped(request), *(answer for answer in answers if isinstance(answer, Note)), *environment_note(command)]
    settings = [Setting("name", sources.job_name(request), "output_dir"), *(one for one in answers if isinstance(one, Setting))]
    text = job_text(worth_writing(settings), notes=notes, file=FILES[command.script])
    check(text, settings=settings, environment=circumstances.environment)
    return Converted(text, tuple(str(note) for note in notes))


def unmapped(request: Request) -> Iterator[Note]:
    """A note for each given flag that the table has no field for."""
    for flag, reason in request.launch.without_equal:
        yield Note(flag, f"{reason}.")
    for name in request.given:
        reason = request.flag(name).why_none(request.script)
        if reason and request.given[name] != request.flag(name).done_anyway:
            yield Note(f"--{name}", f"{reason}.")


def environment_note(command: TrainingCommand) -> Iterator[Note]:
    names = [name for name, _ in command.environment if name != PRECISION_VARIABLE]
    if names:
        yield Note("", f"a job file sets no environment variables; set for `sdjob run` what it needs of {', '.join(names)}.")


def worth_writing(settings: Sequence[Setting]) -> list[Setting]:
    """What a reader looks for, and what an absent field would not mean."""
    absent = mended({}).job.model_dump(mode="json")
    return [setting for setting in settings if setting.always or setting.value != at(absent, setting.path)]


def at(data: dict[str, Any], path: str) -> Any:
    """The value at a path, None where something on the way is absent."""
    first, _, rest = path.partition(".")
    return at(data.get(first) or {}, rest) if rest else data.get(first)


def check(text: str, *, settings: Sequence[Setting], environment: Mapping[str, str]) -> None:
    """The job file's own rules, told in the command's words."""
    try:
        job_from_text(text, source="job file", environment=environment)
    except JobFileError as error:
        flags = {setting.path: setting.flag for setting in settings}
        told = list(dict.fromkeys(retold(problem, flags=flags) for problem in error.problems))
        raise UsageError(told[0] if len(told) == 1 else "\n".join(["no job file can say this:", *told])) from error


def retold(problem: Problem, *, flags: Mapping[str, str]) -> str:
    path, flag = problem.path, ""
    while path and not flag:
        flag, path = flags.get(path, ""), path.rpartition(".")[0]
    sentence = str(replace(problem, source="", line=None)).removeprefix(": ")
    return f"--{flag}: {sentence}" if flag else sentence

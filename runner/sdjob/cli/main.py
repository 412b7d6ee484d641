"""`sdjob`: finds the verb, hands over to its module, and turns errors into exit codes."""

import os
import signal
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol

from sdjob.cli.parser import chosen_verb, new_parser
from sdjob.core.errors import SdjobError, StoppedError, StorageError, UsageError
from sdjob.core.log import Log, redacted, resolve_mode


class Verb(Protocol):
    """What a verb's module has, or an object in its place."""

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def execute(self, args: Namespace, *, log: Log) -> int: ...


# Each verb is imported when it is chosen: `sdjob --help` is instant, and `validate` never waits for what `run` needs.
def init() -> Verb:
    from sdjob.cli import init

    return init


def validate() -> Verb:
    from sdjob.cli import validate

    return validate


def schema() -> Verb:
    from sdjob.cli import schema

    return schema


def convert() -> Verb:
    from sdjob.cli import convert

    return convert


def plan() -> Verb:
    from sdjob.cli import plan

    return plan


def run() -> Verb:
    from sdjob.cli import run

    return run


def cache() -> Verb:
    from sdjob.cli import cache

    return cache


def render() -> Verb:
    from sdjob.cli import render

    return render


def submit() -> Verb:
    from sdjob.cli import submit

    return submit


def status() -> Verb:
    from sdjob.cli import status

    return status


def logs() -> Verb:
    from sdjob.cli import logs

    return logs


def cancel() -> Verb:
    from sdjob.cli import cancel

    return cancel


def list_() -> Verb:
    from sdjob.cli import list as list_

    return list_


def checkpoints() -> Verb:
    from sdjob.cli import checkpoints

    return checkpoints


def export() -> Verb:
    from sdjob.cli import export

    return export


def sample() -> Verb:
    from sdjob.cli import sample

    return sample


def report_() -> Verb:
    from sdjob.cli import report

    return report


def doctor() -> Verb:
    from sdjob.cli import doctor

    return doctor


def completion() -> Verb:
    from sdjob.cli.completion import Completion

    return Completion(whole_parser)


VERBS: dict[str, tuple[Callable[[], Verb], str]] = {
    "init": (init, "write a commented job file to start from"),
    "validate": (validate, "check job files: spelling and sense, offline"),
    "schema": (schema, "print the JSON Schema of the job file"),
    "convert": (convert, "make a job file of a command line of diffusers' training scripts"),
    "plan": (plan, "tell beforehand what a job takes: memory, hours, money"),
    "run": (run, "stage, train, checkpoint and publish on this machine"),
    "cache": (cache, "have the frozen encoders do their work alone, before anything is trained"),
    "render": (render, "print Kubernetes manifests, for kubectl apply -f -"),
    "submit": (submit, "have a cluster run the job"),
    "status": (status, "tell how a job in a cluster stands, why, and what to do next"),
    "logs": (logs, "show what a job in a cluster says"),
    "cancel": (cancel, "stop a job in a cluster; what is committed stands"),
    "list": (list_, "list the jobs in a cluster"),
    "checkpoints": (checkpoints, "list, verify or prune the checkpoints of a run"),
    "export": (export, "write the weights of any checkpoint to a folder"),
    "sample": (sample, "draw pictures with a run, a published folder or a base model"),
    "report": (report_, "write a page of a run: curves, samples, what the time went to"),
    "doctor": (doctor, "look at this machine, and at a job's places, for what would fail"),
    "completion": (completion, "print a script by which a shell completes sdjob's commands"),
}


def lines() -> dict[str, str]:
    """What the help says of each verb."""
    return {name: line for name, (_, line) in VERBS.items()}


def whole_parser() -> ArgumentParser:
    """With the arguments of all verbs, where a command line is parsed with those of its own verb alone."""
    parser, parsers = new_parser(lines())
    for name, (module, _) in VERBS.items():
        module().add_arguments(parsers[name])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command line; without arguments that of this process's own."""
    if arguments is None:
        arguments = sys.argv[1:]
        # Until a verb takes signals itself: as a container's first process we would not even get what we do not handle.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = Log(mode="text")
    try:
        code = dispatch(arguments, log=log)
        sys.stdout.flush()
        return code
    except SdjobError as error:
        return report(error, arguments=arguments, log=log)
    except KeyboardInterrupt:
        return report(StoppedError("stopped on request."), arguments=arguments, log=log)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return report(StorageError("whoever read the output has closed it."), arguments=arguments, log=log)
    except Exception as error:
        sys.stderr.write(redacted(traceback.format_exc(), secrets=log.secrets))
        return report(SdjobError(f"this is a fault of sdjob: {type(error).__name__}: {error}"), arguments=arguments, log=log)


def dispatch(arguments: Sequence[str], *, log: Log) -> int:
    verb = chosen_verb(arguments, verbs=VERBS)
    parser, parsers = new_parser(lines())
    module = VERBS[verb][0]() if verb else None
    if verb and module:
        module.add_arguments(parsers[verb])
    try:
        args = parser.parse_args(arguments)
    except SystemExit as finished:  # after --help and --version, which have printed
        return int(finished.code or 0)
    log.mode = resolve_mode(log_choice(args), stream=sys.stderr)
    if module is None:
        raise UsageError("a command is missing.", next_step="See `sdjob --help`.")
    return module.execute(args, log=log)


def log_choice(args: Namespace) -> Literal["auto", "json", "text"]:
    return args.log


def report(error: SdjobError, *, arguments: Sequence[str], log: Log) -> int:
    """An error as people read it, or as one event where JSON was asked for by name."""
    text = str(error)
    if asked_for_json(arguments):
        log.mode = "json"
        log.event("error", text, exit_code=error.exit_code)
    else:
        # The problems of a job file begin with file:line, which editors look for. Their class is slow to import.
        named = text if hasattr(error, "problems") else f"sdjob: {text}"
        sys.stderr.write(redacted(named, secrets=log.secrets) + "\n")
    return error.exit_code


def asked_for_json(arguments: Sequence[str]) -> bool:
    return "--log=json" in arguments or ("--log", "json") in pairwise(arguments)


if __name__ == "__main__":
    sys.exit(main())

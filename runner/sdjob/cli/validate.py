"""`sdjob validate FILE...`: one line for each file on stdout, every problem on stderr."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdjob import __version__
from sdjob.core.errors import SdjobError
from sdjob.core.log import Log, redacted
from sdjob.spec.problems import JobFileError, Problem


@dataclass(frozen=True)
class Verdict:
    """What is to be said about one file."""

    file: str
    exit_code: int = 0
    problems: tuple[Problem, ...] = ()
    not_yet: tuple[str, ...] = ()
    """Of a valid file: what this version refuses to run."""

    def line(self) -> str:
        if self.problems:
            count = f"{len(self.problems)} problem" + ("s" if len(self.problems) > 1 else "")
            return f"{self.file}: not valid, {count}"
        if self.not_yet:
            fields = ", ".join(sentence.partition(":")[0] for sentence in self.not_yet)
            return f"{self.file}: valid; sdjob {__version__} cannot run it yet because of {fields}"
        return f"{self.file}: valid"

    def as_json(self) -> dict[str, Any]:
        problems = [{**asdict(problem), "text": str(problem)} for problem in self.problems]
        return {"file": self.file, "valid": not self.problems, "problems": problems, "not_yet": self.not_yet}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, as train.lora.rank=8")
    parser.add_argument("--json", action="store_true", help="print a JSON list with every problem instead of lines")


def execute(args: Namespace, *, log: Log) -> int:
    verdicts = [verdict(file, overrides=args.set) for file in args.files]
    if args.json:
        print(redacted(json.dumps([one.as_json() for one in verdicts], indent=2), secrets=log.secrets))
    else:
        show(verdicts, log=log)
    return next((one.exit_code for one in verdicts if one.exit_code), 0)


def verdict(file: Path, *, overrides: list[str]) -> Verdict:
    from sdjob.spec.load import load_job
    from sdjob.spec.support import unsupported

    try:
        job = load_job(file, overrides=overrides, environment=os.environ)
    except JobFileError as error:
        return Verdict(str(file), error.exit_code, error.problems)
    except SdjobError as error:
        # What keeps one file from being read must not hide what is wrong with the next.
        return Verdict(
            str(file), error.exit_code, (Problem(str(file), None, "", f"{error.what} {error.next_step or ''}".strip()),)
        )
    return Verdict(str(file), not_yet=tuple(unsupported(job)))


def show(verdicts: list[Verdict], *, log: Log) -> None:
    for one in verdicts:
        for problem in one.problems:
            sys.stderr.write(redacted(f"{problem}\n", secrets=log.secrets))
        print(one.line())

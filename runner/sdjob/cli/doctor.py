"""`sdjob doctor [FILE]`: one line for each finding on stdout; exit 0, or the code of the first line that failed."""

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob import __version__
from sdjob.core.log import Log, redacted

if TYPE_CHECKING:
    from sdjob.job.doctor.finding import Finding

TIMEOUT_S = 60.0
EPILOG = (
    "Without FILE it looks at this machine; with FILE also at all that the job asks for: its places are listed, written to "
    "and cleaned up again, and nothing is trained or fetched. Exit code: 0 where no line failed, else that of the first line "
    "that did, as of a run: 64 the job file, 66 a place that is not there, 69 an accelerator or package, 74 storage or "
    "scratch, 77 permission, 78 a store that cannot fence."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a job file; absent: this machine alone")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, metavar="S", help="how long to wait for each answer (default: 60)"
    )
    parser.epilog = EPILOG


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ArgumentTypeError(f"{text} is no number of seconds above 0")
    return number


def execute(args: Namespace, *, log: Log) -> int:
    from sdjob.cli.run import load_for_this_machine
    from sdjob.job.doctor.checkup import Checkup
    from sdjob.job.doctor.examine import Examination
    from sdjob.job.doctor.finding import exit_code_of

    load = (lambda: load_for_this_machine(args.file, overrides=args.set)) if args.file else None
    checkup, found = Checkup(args.timeout), list["Finding"]()
    for finding in Examination(log, load=load).findings(checkup):
        found.append(finding)
        if not args.json:
            show(finding.line(), log=log)
    show(document(found) if args.json else last_line(found), log=log)
    code = exit_code_of(found)
    if checkup.hung:  # an interpreter that ends as usual would wait for threads that wait for a dead server
        sys.stdout.flush()
        os._exit(code)
    return code


def show(text: str, *, log: Log) -> None:
    """Line by line: a person sees what is being waited for."""
    from sdjob.job.doctor.finding import without_secrets

    print(without_secrets(redacted(text, secrets=log.secrets)), flush=True)


def document(found: "list[Finding]") -> str:
    from sdjob.job.doctor.finding import exit_code_of

    content = {"sdjob": __version__, "exit_code": exit_code_of(found), "findings": [finding.as_json() for finding in found]}
    return json.dumps(content, indent=1)


def last_line(found: "list[Finding]") -> str:
    from sdjob.job.doctor.finding import exit_code_of, summary

    return f"{summary(found)}: exit {exit_code_of(found)}"

"""`sdjob plan FILE`: what a job will take, told before anything is started; offline."""

import json
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob.core.log import Log, redacted

if TYPE_CHECKING:
    from sdjob.plan.outlook import Outlook
    from sdjob.plan.program import Program
    from sdjob.spec.job import JobSpec


COMPILE = "make the real step ahead, which takes from seconds to many minutes: torch traces it, for a TPU libtpu compiles it"
MEMORY_ALONE = "with --compile: end the TPU's compiler once the memory is settled, at a tenth of the time"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")
    add_limit_arguments(parser)
    parser.add_argument("--compile", action="store_true", help=COMPILE)
    parser.add_argument("--memory-alone", action="store_true", help=MEMORY_ALONE)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")


def add_limit_arguments(parser: ArgumentParser) -> None:
    """What `submit` takes too."""
    parser.add_argument("--budget", type=amount, metavar="USD", help="end with exit 64 where it may cost more")
    parser.add_argument("--max-hours", type=amount, metavar="HOURS", help="end with exit 64 where it may take longer")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="prices of your own (TOML), which count before the table's")


def amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"must be a number above 0, not '{text}'")
    return value


def execute(args: Namespace, *, log: Log) -> int:
    from sdjob.plan.limits import require_within
    from sdjob.spec.load import load_job

    found = outlook_of(load_job(args.file, overrides=args.set, environment=os.environ), prices=args.prices)
    program = ahead(found, memory_alone=args.memory_alone, log=log) if args.compile else None
    print(
        redacted(as_json(found, program=program) if args.json else as_text(found, program=program), secrets=log.secrets),
        flush=True,
    )
    require_within(found, budget_usd=args.budget, max_hours=args.max_hours)
    return 0


def outlook_of(job: "JobSpec", *, prices: Path | None) -> "Outlook":
    from sdjob.plan.models import known_model
    from sdjob.plan.outlook import outlook
    from sdjob.plan.pictures import num_pictures
    from sdjob.plan.prices import read_prices

    base = Path.cwd()
    model, pictures = known_model(job.model, base=base), num_pictures(job.data, base=base)
    return outlook(job, model=model, pictures=pictures, prices=read_prices(prices))


def ahead(found: "Outlook", *, memory_alone: bool, log: Log) -> "Program":
    from sdjob.job.ahead.program import program_ahead
    from sdjob.job.machine import scratch_root

    log.event("compile", "the step is made ahead ...")
    return program_ahead(found.job, model=found.model, keep=scratch_root(found.job) / "plan", memory_alone=memory_alone)


def as_text(found: "Outlook", *, program: "Program | None" = None) -> str:
    from sdjob.cli.plan_text import lines, program_lines

    return "\n".join([*lines(found), *(program_lines(found, program) if program else ())])


def as_json(found: "Outlook", *, program: "Program | None" = None) -> str:
    from sdjob.plan.summary import summary

    return json.dumps({**summary(found), **({"compiled": program.summary(machine=found.machine)} if program else {})}, indent=2)

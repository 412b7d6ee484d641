"""`sdjob cache FILE`: the frozen encoders alone, so that whoever trains finds their work done."""

import argparse
from pathlib import Path

from sdjob.core.clock import SystemClock
from sdjob.core.log import Log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.cli.run import load_for_this_machine
    from sdjob.core.reap import reap_as_first_process
    from sdjob.job.cache import cache_job
    from sdjob.job.stop import StopRequest
    from sdjob.spec.run import notice_s

    job = load_for_this_machine(args.file, overrides=args.set)
    clock = SystemClock()
    stop = StopRequest(clock, notice_s=notice_s(job.run))
    stop.install()
    reap_as_first_process()
    cache_job(job, stop=stop, clock=clock, log=log)
    return 0

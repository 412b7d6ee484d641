"""`sdjob run FILE`: stage, train, checkpoint, publish on this machine; also a container's entry point."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob.core.clock import SystemClock
from sdjob.core.log import Log

if TYPE_CHECKING:
    from sdjob.spec.job import JobSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")
    parser.add_argument(
        "--restarts", type=count, default=0, metavar="N", help="start again after exit 75 or a crash, N times at most"
    )


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of restarts")
    return int(text)


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.job.last_words import last_words, leave
    from sdjob.job.supervise import SIGNALLED, ended_with

    with last_words(environment=os.environ, log=log):
        if not args.restarts:
            run(args, log=log)
            leave("done", environment=os.environ, log=log)
            return 0
        code = supervise(args, log=log)
        if code > SIGNALLED:  # every other end has left its words itself
            leave(ended_with(code), environment=os.environ, log=log)
        return code


def supervise(args: argparse.Namespace, *, log: Log) -> int:
    """Runs this command without --restarts, again and again."""
    from sdjob.core.proc import start_listening
    from sdjob.core.reap import reap_as_first_process
    from sdjob.job.stop import StopRequest
    from sdjob.job.supervise import Supervisor, stalled, until_stopped
    from sdjob.spec.load import load_job
    from sdjob.spec.run import notice_s

    job = load_job(args.file, overrides=args.set, environment=os.environ)
    clock = SystemClock()
    stop = StopRequest(clock, notice_s=notice_s(job.run))
    stop.install()
    reap_as_first_process()
    settings = [f"--set={override}" for override in args.set]
    # -P: the folder that a person stands in may hold an sdjob of its own.
    command = [sys.executable, "-P", "-m", "sdjob", "--log", args.log, "run", *settings, "--", str(args.file)]
    return Supervisor(
        start=lambda before: start_listening(command, environment=before.environment() if before else {}),
        restarts=args.restarts,
        stop=stop,
        has_stalled=lambda: stalled(job),
        wait=until_stopped(stop),
        clock=clock,
        log=log,
    ).run()


def run(args: argparse.Namespace, *, log: Log) -> None:
    from sdjob.core.reap import reap_as_first_process
    from sdjob.job.notice import notice_watched
    from sdjob.job.overdue import left_when_overdue
    from sdjob.job.run import run_job
    from sdjob.job.stop import StopRequest
    from sdjob.job.vitals.pages import metrics_served
    from sdjob.job.vitals.signs import Vitals
    from sdjob.spec.run import notice_s

    job = load_for_this_machine(args.file, overrides=args.set)
    clock = SystemClock()
    stop = StopRequest(clock, notice_s=notice_s(job.run))
    stop.install()
    left_when_overdue(stop, clock=clock, environment=os.environ, log=log)
    reap_as_first_process()
    vitals = Vitals(job, clock)
    notice = notice_watched(job.run, stop=stop, environment=os.environ, log=log)
    with notice, metrics_served(vitals, stop=stop, environment=os.environ, log=log):
        run_job(job, stop=stop, clock=clock, log=log, vitals=vitals)


def load_for_this_machine(path: Path, *, overrides: list[str]) -> "JobSpec":
    """Where the file names no accelerator the job gets what is here; the default batch follows from that."""
    from sdjob.job.machine import accelerator_here
    from sdjob.spec.load import load_job

    job = load_job(path, overrides=overrides, environment=os.environ)
    if job.run.accelerator is None and (here := accelerator_here()):
        job = load_job(path, overrides=[*overrides, f"run.accelerator={here}"], environment=os.environ)
    return job

"""`sdjob cache FILE`: the frozen encoders alone, so that whoever trains finds their work done."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob.core.clock import SystemClock
from sdjob.core.errors import UsageError
from sdjob.core.log import Log

if TYPE_CHECKING:
    from sdjob.job.unneeded import Unneeded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")
    parser.add_argument("--prune", action="store_true", help="encode nothing: list the shards in its place that it does not need")
    parser.add_argument("--yes", action="store_true", help="with --prune: delete them")


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.cli.run import load_for_this_machine
    from sdjob.core.reap import reap_as_first_process
    from sdjob.job.cache import cache_job, prune_cache
    from sdjob.job.stop import StopRequest
    from sdjob.spec.run import notice_s

    if args.yes and not args.prune:
        raise UsageError("--yes says what --prune shall do.", next_step="Pass both, or neither.")
    job = load_for_this_machine(args.file, overrides=args.set)
    clock = SystemClock()
    stop = StopRequest(clock, notice_s=notice_s(job.run))
    stop.install()
    reap_as_first_process()
    if args.prune:
        found = prune_cache(job, delete=args.yes, stop=stop, clock=clock, log=log)
        print("\n".join(lines_of(found, are_gone=args.yes, are_shared=job.run.cache is not None)))
    else:
        cache_job(job, stop=stop, clock=clock, log=log)
    return 0


def lines_of(found: "Unneeded", *, are_gone: bool, are_shared: bool) -> list[str]:
    from sdjob.cli.checkpoints import readable_size

    lines = [f"{readable_size(info.size_bytes):>10}  {info.key}" for info in found.shards]
    count = f"{len(found.shards)} of {len(found.shards) + found.num_needed} shards, {readable_size(found.size_bytes)}"
    if are_gone:
        return [*lines, f"deleted in {found.place}: {count}"]
    lines.append(f"needed neither by this job nor by a checkpoint known in {found.place}: {count}")
    if found.shards and are_shared:
        lines.append("other jobs may share run.cache: what they need of these they encode again")
    return [*lines, "nothing was deleted: --prune --yes deletes them"] if found.shards else lines

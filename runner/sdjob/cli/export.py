"""`sdjob export PLACE --to DIR`: the weights of any checkpoint of a run."""

import argparse
from pathlib import Path

from sdjob.core.clock import SystemClock
from sdjob.core.log import Log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="PLACE", help="the run: its job's checkpoint.to")
    parser.add_argument("--step", type=int, help="the checkpoint's step; absent: the newest")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder that does not exist yet, or is empty")
    parser.add_argument("--format", choices=["diffusers", "kohya"], default="diffusers", help="kohya is for a LoRA alone")
    parser.add_argument("--weights", choices=["ema", "raw"], help="absent: ema where the run keeps moving averages, else raw")


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.job.export import export
    from sdjob.spec.places import parse_place
    from sdjob.store.open import open_run

    done = export(
        open_run(parse_place(args.place, base=Path.cwd())),
        step=args.step,
        to=args.to,
        format=args.format,
        weights=args.weights,
        clock=SystemClock(),
        log=log,
    )
    log.event("exported", f"step {done.step} (digest {done.digest[:12]})", step=done.step, digest=done.digest)
    for name in done.files:
        print(args.to / name)
    return 0

"""`sdjob report PLACE --out FILE.html`: one self-contained page of a run."""

import argparse
import math
from pathlib import Path

from sdjob.core.clock import SystemClock
from sdjob.core.log import Log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="PLACE", help="the run: its job's checkpoint.to")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, such as report.html")
    parser.add_argument(
        "--price-per-hour",
        type=price,
        metavar="USD",
        help="of all the run's machines together; by default what plan's table has for them",
    )


def price(text: str) -> float:
    usd = float(text)
    if not (math.isfinite(usd) and usd >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no price")
    return usd


def execute(args: argparse.Namespace, *, log: Log) -> int:
    from sdjob.report.overview import Price
    from sdjob.report.write import write_report
    from sdjob.spec.places import parse_place
    from sdjob.store.open import open_run

    size_bytes = write_report(
        open_run(parse_place(args.place, base=Path.cwd())),
        out=args.out,
        price=None if args.price_per_hour is None else Price(args.price_per_hour, "--price-per-hour"),
        clock=SystemClock(),
        log=log,
    )
    log.event("reported", f"the page has {size_bytes / 2**20:.2f} MiB", size_bytes=size_bytes)
    print(args.out)
    return 0

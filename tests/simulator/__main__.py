"""`make simulate`, or by hand:

PYTHONPATH=tests .venv/bin/python -m simulator --schedules 1000000 --workers 2
PYTHONPATH=tests .venv/bin/python -m simulator --seed 4711            # one schedule again, call by call
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from simulator.histories import play_seed
from simulator.tally import Tally, tally_of

CHUNK = 500
SAMPLED = 64  # one state in so many is kept where a million schedules show more than fit into memory


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulator", description="Plays schedules of the commit log.")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, help="plays this one schedule, and prints it call by call")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options.seed)
    return simulate(options.first_seed, schedules=options.schedules, workers=options.workers)


def replay(seed: int) -> int:
    outcome = play_seed(seed, trace=True)
    sys.stdout.write("\n".join([*outcome.trace, *outcome.violations, f"{len(outcome.violations)} violations"]) + "\n")
    return 1 if outcome.violations else 0


def simulate(first_seed: int, *, schedules: int, workers: int) -> int:
    started_s, total = time.monotonic(), Tally(sampled=SAMPLED)
    chunks = [
        range(start, min(start + CHUNK, first_seed + schedules)) for start in range(first_seed, first_seed + schedules, CHUNK)
    ]
    with ProcessPoolExecutor(workers) as pool:
        for number, tally in enumerate(pool.map(tallied, chunks), start=1):
            total.add(tally)
            for line in tally.failure_lines():
                sys.stdout.write(line + "\n")
            if number % 20 == 0 or number == len(chunks):
                sys.stdout.write(f"{total.sentence(time.monotonic() - started_s)}\n")
                sys.stdout.flush()
    return 1 if total.failures else 0


def tallied(seeds: range) -> Tally:
    return tally_of(((str(seed), play_seed(seed)) for seed in seeds), sampled=SAMPLED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Which share of the time that is paid for becomes steps that stand, on spot machines: interruptions replayed in virtual time.

    python benchmarks/goodput.py [--mean-hours 1] [--hours 12] [--repeats 200] [--trace FILE ...]
    python benchmarks/goodput.py --check [--kills 6] [--kill-mean-s 60]      the model beside real runs that are killed by SIGKILL

A run of so many hours of steps goes from machine to machine under every policy, with the same machines for each. The costs are
options; their defaults are those of a LoRA of SD 1.5 on one L4, with where they come from beside them (--help). Uptimes are drawn
from three laws, scaled to the mean, or read from a file: CSV with the seconds of one uptime a line, or JSON as in
https://github.com/skypilot-org/spot-traces. A trace that is used up begins again; each repeat begins elsewhere in it.

--check runs a small LoRA on this machine, kills each attempt at a time drawn from the exponential law, measures the costs from
the run's ledger, and replays the very same uptimes: the two shares must not differ by more than 0.02.
"""

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean

import numpy as np

from goodput_check import check
from goodput_model import Costs, Outcome, Parts, Policy, replay
from sdjob.plan.interruptions import Save, interval_s

HOUR_S = 3600.0
MOST_PAID = 20  # times the run's own length; who is not done by then is given up
AGREE = 0.02
HEAD = """\
| interruptions | policy | useful share | start | restore | lost | stall | ending | waiting | interruptions a run | done |
|---|---|---|---|---|---|---|---|---|---|---|"""

# Maximum likelihood over the 204 uptimes of one V100 on AWS's spot market in four zones in a week, of a mean of 2.1 hours:
# https://github.com/skypilot-org/spot-traces, preemption/1-node/aws-04-22-2023 (Wu et al., "Can't Be Late", NSDI 24).
WEIBULL_SHAPE = 0.62
# F(t) = A (1 - exp(-t/tau1) + exp((t-b)/tau2)), in hours: the law of Kadupitiya, Jadhao and Sharma for VMs that live for a day at
# most (https://arxiv.org/abs/1911.05160), fitted by least squares to all 1,442 preemptions that they published, of a mean of
# 8.4 hours: https://github.com/kadupitiya/goog-preemption-data.
BATHTUB = {"A": 0.638, "tau1": 0.965, "tau2": 1.093, "b": 25.36}


# ---- interruptions ---------------------------------------------------------------------------------------------------------

Law = Callable[[np.random.Generator, float], Iterator[float]]
"""Uptimes in seconds without end, of this mean."""


def exponential(random: np.random.Generator, mean_s: float) -> Iterator[float]:
    while True:
        yield float(random.exponential(mean_s))


def weibull(random: np.random.Generator, mean_s: float) -> Iterator[float]:
    scale_s = mean_s / math.gamma(1 + 1 / WEIBULL_SHAPE)
    while True:
        yield scale_s * float(random.weibull(WEIBULL_SHAPE))


def bathtub(random: np.random.Generator, mean_s: float) -> Iterator[float]:
    """By the inverse of F, which is cut off where it reaches 1: at the longest life that there is."""
    A, tau1, tau2, b = BATHTUB.values()
    hours = np.linspace(0, 1.1 * b, 20_001)
    F = np.clip(A * (1 - np.exp(-hours / tau1) + np.exp((hours - b) / tau2)), 0, 1)
    mean_hours = float(np.sum(1 - F) * (hours[1] - hours[0]))
    while True:
        yield mean_s * float(np.interp(random.uniform(), F, hours)) / mean_hours


def from_trace(uptimes_s: list[float]) -> Law:
    def law(random: np.random.Generator, _mean_s: float) -> Iterator[float]:
        begin = int(random.integers(len(uptimes_s)))
        return itertools.cycle(uptimes_s[begin:] + uptimes_s[:begin])

    return law


def read_trace(path: Path) -> list[float]:
    """Seconds. The uptime under way at the end of a JSON trace counts as if it had ended there."""
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        gap_s = float(found["metadata"]["gap_seconds"])
        return [gap_s * len(list(ticks)) for up, ticks in itertools.groupby(found["data"], key=bool) if up]
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[0]) for row in csv.reader(file) if row and not row[0].startswith("#")]


# ---- policies --------------------------------------------------------------------------------------------------------------


def policies(costs: Costs, *, mean_s: float) -> tuple[Policy, ...]:
    auto_s = interval_s(Save(costs.stall_s, costs.commit_s), interrupted_every_s=mean_s)  # as `checkpoint.every: auto` has it
    return (
        Policy(name="no checkpoints", at_notice=False),
        Policy(name="every 500 steps, training waits", every_steps=500, beside=False, at_notice=False),
        Policy(name="sdjob, no notice, every 60 s", every_seconds=60, at_notice=False),
        Policy(name="sdjob, every 500 steps", every_steps=500),
        Policy(name="sdjob, every 60 s", every_seconds=60),
        Policy(name=f"sdjob, auto: every {auto_s:.0f} s", every_seconds=auto_s),
    )


# ---- many runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    costs: Costs
    mean_s: float
    total_steps: int
    repeats: int
    seed: int

    def outcomes(self, law: Law, policy: Policy) -> list[Outcome]:
        """Repeat r sees the same machines under every policy."""
        most_paid_s = MOST_PAID * self.total_steps * self.costs.step_s
        given = {"costs": self.costs, "policy": policy, "total_steps": self.total_steps, "most_paid_s": most_paid_s}
        draws = (np.random.default_rng([self.seed, repeat]) for repeat in range(self.repeats))
        return [replay(law(random, self.mean_s), **given) for random in draws]


def row(name: str, policy: Policy, outcomes: list[Outcome]) -> str:
    """The share is the mean over the repeats, with its standard error; the parts are of all that was paid in all of them."""
    shares, total = np.array([outcome.share for outcome in outcomes]), Parts()
    for outcome in outcomes:
        total.add(outcome.parts)
    error = shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else math.nan
    parts = " | ".join(f"{100 * getattr(total, part.name) / total.paid:.2f} %" for part in fields(Parts) if part.name != "useful")
    interruptions = sum(outcome.lives - outcome.done for outcome in outcomes) / len(outcomes)
    done = sum(outcome.done for outcome in outcomes) / len(outcomes)
    return f"| {name} | {policy.name} | {shares.mean():.3f} ± {error:.3f} | {parts} | {interruptions:.1f} | {100 * done:.0f} % |"


def bounds(outcomes: list[Outcome]) -> str:
    """What the rest is made of, the largest part first."""
    total = Parts()
    for outcome in outcomes:
        total.add(outcome.parts)
    rest = {part.name: getattr(total, part.name) for part in fields(Parts) if part.name != "useful"}
    lives = sum(outcome.lives for outcome in outcomes)
    of_each = (f"{name} {value / lives:.1f} s" for name, value in sorted(rest.items(), key=lambda item: -item[1]) if value > 0)
    return f"a machine costs {sum(rest.values()) / lives:.1f} s: " + ", ".join(of_each)


def report(plan: Plan, laws: dict[str, tuple[Law, float]]) -> None:
    """`laws`: with the mean that sdjob's own rule for its interval is told."""
    print(f"{plan.costs}\n\n{HEAD}")
    last = ""
    for name, (law, mean_s) in laws.items():
        for policy in policies(plan.costs, mean_s=mean_s):
            outcomes = plan.outcomes(law, policy)
            print(row(name, policy, outcomes), flush=True)
        last += f"\n{name}, {policy.name}: {bounds(outcomes)}"
    print(last)


# ---- the command line ------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cost = parser.add_argument_group("costs").add_argument
    cost("--step-s", type=float, default=0.21, help="4 pictures at 19 a second, reckoned: jobspecs/sd15-lora-l4-spot.yaml")
    cost("--start-s", type=float, default=60.0, help="of a process, assumed for a GPU; the ledger's phase start-to-first-step")
    cost("--restore-s", type=float, default=0.0, help="0 where --start-s holds it already, as the ledger's phase does")
    cost(
        "--stall-s",
        type=float,
        default=0.05,
        help="of the training, a save: benchmarks/checkpoint_stall.py, the ledger's commit events",
    )
    cost("--commit-s", type=float, default=2.0, help="from a copy to its commit; `seconds` of the ledger's commit events")
    cost("--size-mib", type=float, default=37.0, help="of a state: LoRA of rank 16 on SD 1.5, 3.2 M x 4 B x (weights, 2 moments)")
    cost("--notice-s", type=float, default=15.0, help="GKE spot; 90 on EKS, 25 on AKS: run.notice_s")
    cost("--replace-s", type=float, default=90.0, help="until the next machine's process starts, assumed")
    cost("--replace-paid", action="store_true", help="where the next machine is paid from its boot on, image pull included")
    parser.add_argument("--mean-hours", type=float, default=1.0, help="between two interruptions; a trace keeps its own")
    parser.add_argument("--hours", type=float, default=12.0, help="of steps, that a run needs")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, action="append", default=[])
    parser.add_argument(
        "--check", action="store_true", help="the model beside real runs; takes kills x kill-mean-s and some more"
    )
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--kill-mean-s", type=float, default=60.0)
    parser.add_argument("--kill-save-s", type=float, default=2.0, help="between two saves of the real runs")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    if asked.check:
        uptimes_s = itertools.islice(exponential(np.random.default_rng([asked.seed]), asked.kill_mean_s), asked.kills)
        difference = check(list(uptimes_s), every_seconds=asked.kill_save_s)
        sys.exit(0 if abs(difference) <= AGREE else f"they differ by {difference:.3f}, more than {AGREE}")
    costs = Costs(
        step_s=asked.step_s, start_s=asked.start_s, restore_s=asked.restore_s, stall_s=asked.stall_s, commit_s=asked.commit_s,
        size_bytes=int(asked.size_mib * 2**20), notice_s=asked.notice_s, replace_s=asked.replace_s,
        replace_paid=asked.replace_paid,
    )  # fmt: skip
    plan = Plan(costs, asked.mean_hours * HOUR_S, round(asked.hours * HOUR_S / asked.step_s), asked.repeats, asked.seed)
    traces = {path.stem: read_trace(path) for path in asked.trace}
    drawn = {"exponential": exponential, "weibull": weibull, "bathtub": bathtub}
    report(
        plan,
        {name: (from_trace(uptimes_s), mean(uptimes_s)) for name, uptimes_s in traces.items()}
        or {name: (law, plan.mean_s) for name, law in drawn.items()},
    )


if __name__ == "__main__":
    main()

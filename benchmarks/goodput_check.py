"""The model of benchmarks/goodput.py beside real runs that are killed by SIGKILL, at the same moments, with measured costs."""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from goodput_model import Costs, Policy, replay
from sdjob.ledger.seconds import account

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "jobspecs" / "quickstart"
STEPS_WITHOUT_END = 1_000_000


@dataclass(frozen=True)
class Life:
    """What one killed attempt left behind; steps count from the first measured attempt's beginning."""

    uptime_s: float
    ended_unix_s: float
    committed: int

    def holds(self, time_s: float) -> bool:
        return self.ended_unix_s - self.uptime_s <= time_s <= self.ended_unix_s


def check(uptimes_s: list[float], *, every_seconds: float) -> float:
    """Real share less the model's, of the paid time of these machines."""
    sys.path.insert(0, str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder) / "job", every_seconds=every_seconds)
        first_step = warm_up(job)
        lives = [live(job, uptime_s, first_step=first_step) for uptime_s in uptimes_s]
        ledgers = job.ledgers()[1:]
    costs, real = measured(ledgers), share_of(ledgers, lives=lives)
    policy = Policy(name="as the runs", every_seconds=every_seconds, at_notice=False)
    report(lives, real=real, costs=costs, policy=policy)
    return real - modelled(lives, costs=costs, policy=policy)[-1].share


def make_job(folder: Path, *, every_seconds: float) -> Any:
    """The quickstart's model and pictures, in small batches; nothing but training, saves and restarts."""
    from fakes.running import write_job  # noqa: PLC0415 (found only now)

    return write_job(
        folder, model=QUICKSTART / "base", pictures=QUICKSTART / "pictures", train__steps=STEPS_WITHOUT_END,
        train__global_batch=4, train__device_batch=4, validation=None, publish=[],
        checkpoint={"to": str(folder / "run"), "every_seconds": every_seconds, "keep": 3},
    )  # fmt: skip


def warm_up(job: Any) -> int:
    """The first attempt also stages the model and looks at every picture, which none after it does. Its newest step."""
    running = job.start()
    running.wait_for("commit")
    running.kill()
    return newest_step(job)


def newest_step(job: Any) -> int:
    return max(job.committed_steps())


def live(job: Any, uptime_s: float, *, first_step: int) -> Life:
    begun_s = time.monotonic()
    running = job.start()
    time.sleep(max(0.0, begun_s + uptime_s - time.monotonic()))
    if running.process.poll() is not None:
        raise SystemExit(f"the run ended by itself:\n{running.output[-3000:]}")
    ended_s, ended_unix_s = time.monotonic(), time.time()
    running.kill()
    return Life(ended_s - begun_s, ended_unix_s, newest_step(job) - first_step)


# ---- costs, from the ledger ------------------------------------------------------------------------------------------------


def measured(ledgers: list[Any]) -> Costs:
    """Means over the attempts. A start-up holds the restore and the first step; a ledger lacks its attempt's last seconds."""
    phases = [event for ledger in ledgers for event in ledger.events if event["kind"] == "phase"]
    starts_s = [phase["seconds"] for phase in phases if phase["name"] == "start-to-first-step"]
    commits = [event for ledger in ledgers for event in ledger.events if event["kind"] == "commit"]
    if not starts_s or not commits:
        raise SystemExit("no attempt lived long enough to be measured: ask for a larger --kill-mean-s")
    step_s = sum(trained_s(ledger) for ledger in ledgers) / sum(max(0, len(ledger.metrics) - 1) for ledger in ledgers)
    return Costs(
        step_s=step_s, start_s=mean(starts_s) - step_s, restore_s=0.0, stall_s=mean(commit["stall_s"] for commit in commits),
        commit_s=mean(lag_s for ledger in ledgers for lag_s in lags_s(ledger)), size_bytes=commits[-1]["size_bytes"],
        notice_s=0.0, replace_s=0.0,
    )  # fmt: skip


def trained_s(ledger: Any) -> float:
    """From the first step that is told to the last, less the stalls in between."""
    if not ledger.metrics:
        return 0.0
    first, last = ledger.metrics[0], ledger.metrics[-1]
    stalls_s = (event["stall_s"] for event in ledger.events if event["kind"] == "commit" and event["step"] < last["step"])
    return last["time_s"] - first["time_s"] - sum(stalls_s)


def lags_s(ledger: Any) -> list[float]:
    """From the end of each stall until the commit stood."""
    stepped_s = {record["step"]: record["time_s"] for record in ledger.metrics}
    commits = (event for event in ledger.events if event["kind"] == "commit" and event["step"] in stepped_s)
    return [event["time_s"] - stepped_s[event["step"]] - event["stall_s"] for event in commits]


# ---- both shares -----------------------------------------------------------------------------------------------------------


def share_of(ledgers: list[Any], *, lives: list[Life]) -> float:
    """As `sdjob report` reckons it, with what the attempts could not tell themselves: when they ended, and those that ended
    before they had claimed the run."""
    ended_s = {
        ledger.attempt: life.ended_unix_s for ledger in ledgers for life in lives if life.holds(ledger.events[0]["time_s"])
    }
    return account(ledgers, ended_s=ended_s).seconds()["train"] / sum(life.uptime_s for life in lives)


def modelled(lives: list[Life], *, costs: Costs, policy: Policy) -> list[Any]:
    """The outcome after each of the machines."""
    uptimes_s = [life.uptime_s for life in lives]
    given = {"costs": costs, "policy": policy, "total_steps": STEPS_WITHOUT_END}
    return [replay(uptimes_s[: count + 1], **given) for count in range(len(lives))]


def report(lives: list[Life], *, real: float, costs: Costs, policy: Policy) -> None:
    outcomes = modelled(lives, costs=costs, policy=policy)
    print(f"{costs}\n\n| machine | killed after s | committed steps, real | model |\n|---|---|---|---|")
    for number, (life, outcome) in enumerate(zip(lives, outcomes, strict=True), start=1):
        print(f"| {number} | {life.uptime_s:.1f} | {life.committed} | {outcome.committed_step} |")
    model = outcomes[-1].share
    print(f"\nuseful share: real {real:.3f}, model {model:.3f}, difference {real - model:+.3f}", flush=True)

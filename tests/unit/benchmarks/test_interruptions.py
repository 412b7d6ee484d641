"""What plan says of interruptions, against many runs that are played second by second."""

import numpy as np
import pytest

from goodput_model import Costs, Policy, replay
from sdjob.plan.interruptions import losses

HOURS, STEP_S, RUNS = 12.0, 10.0, 4000
COSTS = Costs(
    step_s=STEP_S,
    start_s=180.0,
    restore_s=60.0,
    stall_s=2.0,
    commit_s=70.0,
    size_bytes=14_000_000_000,
    notice_s=25.0,
    replace_s=0.0,
)
STEPS = int(HOURS * 3600 / STEP_S)


def played(costs, *, mean_s, every_s, at_notice):
    """(interruptions, seconds beside the training) of a run, in the mean."""
    policy = Policy(name="", every_seconds=every_s, at_notice=at_notice)
    random = np.random.default_rng(1)
    runs = [
        replay(iter(lambda: random.exponential(mean_s), None), costs=costs, policy=policy, total_steps=STEPS) for _ in range(RUNS)
    ]
    assert all(run.done for run in runs)
    return np.mean([run.lives - 1 for run in runs]), np.mean([run.parts.paid - run.parts.useful for run in runs])


@pytest.mark.parametrize("mean_hours", [24.0, 6.0, 2.0])
@pytest.mark.parametrize("size_bytes", [14_000_000_000, 10_000_000])
def test_losses(mean_hours, size_bytes):
    small = size_bytes < COSTS.size_bytes
    costs = Costs(
        **{**vars(COSTS), "size_bytes": size_bytes, "commit_s": 0.1 if small else 70.0, "stall_s": 0.1 if small else 2.0}
    )
    mean_s = mean_hours * 3600
    interruptions, lost_s = played(costs, mean_s=mean_s, every_s=600.0, at_notice=small)
    found = losses(
        HOURS * 3600, every_s=mean_s, commit_every_s=600.0, start_s=costs.start_s, restore_s=costs.restore_s,
        stall_s=costs.stall_s, commit_s=costs.commit_s, saved_in_s=costs.notice_s if small else None,
    )  # fmt: skip
    assert found.interruptions == pytest.approx(interruptions, rel=0.06)
    assert found.total_s == pytest.approx(lost_s, rel=0.06)


def test_without_interruptions_a_start_and_the_saves_remain():
    found = losses(36_000, every_s=1e12, commit_every_s=600, start_s=180, restore_s=60, stall_s=2, commit_s=70, saved_in_s=None)
    assert (found.interruptions, found.lost_s) == pytest.approx((0, 0), abs=1e-3)
    assert found.starts_s == pytest.approx(180, abs=0.01)
    assert found.stalls_s == pytest.approx(120 + 70)

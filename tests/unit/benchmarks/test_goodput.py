"""The arithmetic of benchmarks/goodput.py, on traces that are reckoned by hand."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import goodput
from goodput_model import Costs, Parts, Policy
from goodput_model import replay as replay_uptimes

COSTS = Costs(
    step_s=1, start_s=10, restore_s=2, stall_s=0.5, commit_s=3, size_bytes=3_000, notice_s=10, replace_s=7
)  # fmt: skip
KILLED = Policy(name="killed", every_steps=10, at_notice=False)
WARNED = Policy(name="warned", every_steps=10)


def replay(uptimes_s, *, policy=KILLED, costs=COSTS, total_steps=1000, most_paid_s=math.inf):
    outcome = replay_uptimes(uptimes_s, costs=costs, policy=policy, total_steps=total_steps, most_paid_s=most_paid_s)
    assert all(getattr(outcome.parts, name) >= 0 for name in vars(outcome.parts))
    return outcome


def test_two_kills_and_an_end():
    # 0-10 start, 10-20 steps 1-10, -20.5 stall (stands at 23.5), -30.5 steps 11-20, -31 stall (34), killed at 40.
    # 0-10 start, -12 restore, -22 steps 21-30, -22.5 stall (25.5), killed at 25: nothing new stands.
    # 0-10 start, -12 restore, -22 steps 21-30, -22.5 stall (25.5), -32.5 steps 31-40, -36 the last save.
    outcome = replay([40, 25, 100], total_steps=40)
    assert outcome.parts == Parts(useful=20 + 0 + 20, start=30, restore=4, lost=9 + 12.5, stall=1 + 0.5 + 0.5, ending=3.5)
    assert (outcome.lives, outcome.committed_step, outcome.done) == (3, 40, True)
    assert outcome.share == pytest.approx(40 / (40 + 25 + 36))


def test_a_machine_that_goes_in_the_last_save():
    # Step 10 is the last one: done at 20, its commit would stand at 23.5.
    assert replay([23], total_steps=10).parts == Parts(start=10, lost=10, ending=3)
    assert replay([23.5], total_steps=10).done


def test_a_notice_saves_the_step_under_way():
    # Asked at 30 in the middle of step 20: done at 30.5, stall to 31, commit to 34; the machine goes at 40.
    outcome = replay([40], policy=WARNED)
    assert outcome.parts == Parts(useful=20, start=10, stall=0.5, ending=9.5)


def test_a_save_that_takes_more_than_its_part_of_the_notice_is_not_begun():
    # The save of step 10 stands at 28.5. At 31 there are 9 s left: 8 s are more than 0.7 of them.
    outcome = replay([40], policy=WARNED, costs=replace(COSTS, commit_s=8))
    assert outcome.parts == Parts(useful=10, start=10, lost=10, stall=0.5, ending=9.5)


def test_who_has_not_measured_an_upload_tries():
    # Asked at 15 after step 5; at 15.5 there are 9.5 s left, and 8 s fit, though not into 0.7 of them.
    outcome = replay([25], policy=WARNED, costs=replace(COSTS, commit_s=8))
    assert outcome.parts == Parts(useful=5, start=10, ending=10)
    assert replay([25], policy=WARNED, costs=replace(COSTS, commit_s=9.6)).parts.useful == 0


def test_a_save_at_the_notice_waits_for_the_one_under_way():
    # The save of step 10 stands at 31.5, step 20 is done at 30.5: its commit lasts until 32 + 2 x 11 and more, which is too late.
    outcome = replay([40], policy=WARNED, costs=replace(COSTS, commit_s=11))
    assert outcome.parts == Parts(useful=10, start=10, lost=10, stall=0.5, ending=9.5)


def test_a_save_that_falls_due_while_one_is_under_way_is_skipped():
    # Saves: step 10 at 20.5 (stands at 35.5), step 20 at 30.5 is skipped, step 30 at 41 (stands at 56), step 40 at 51 is skipped.
    outcome = replay([60], costs=replace(COSTS, commit_s=15))
    assert outcome.parts == Parts(useful=30, start=10, lost=19, stall=1)


def test_training_that_waits_for_its_saves():
    # 0-10 start, -20 ten steps, -23.5 the save, -33.5 ten steps, killed at 36 in the save.
    outcome = replay([36], policy=replace(KILLED, beside=False))
    assert outcome.parts == Parts(useful=10, start=10, lost=10, stall=3.5 + 2.5)


def test_by_the_clock_a_save_comes_after_the_first_step_past_its_time():
    # Eleven steps to 21, stall to 21.5 (24.5); eleven to 32.5, stall to 33 (36); killed at 36.
    policy = Policy(name="clock", every_seconds=10.5, at_notice=False)
    assert replay([36], policy=policy).committed_step == 22
    assert replay([35.9], policy=policy).committed_step == 11


def test_a_machine_that_goes_before_the_first_step():
    assert replay([4]).parts == Parts(start=4)
    assert replay([12], policy=WARNED).parts == Parts(start=2, ending=10)
    assert replay([40, 11], policy=KILLED).parts.restore == 1


def test_the_wait_for_the_next_machine_counts_where_it_is_paid():
    assert replay([40, 40]).parts.waiting == 0
    outcome = replay([40, 40], costs=replace(COSTS, replace_paid=True))
    assert outcome.parts.waiting == 7
    assert outcome.parts.paid == 40 + 7 + 40


def test_without_checkpoints_nothing_stands_before_the_end():
    never = Policy(name="none", at_notice=False)
    lost = replay(itertools.repeat(100), policy=never, most_paid_s=1000)
    assert (lost.parts, lost.done) == (Parts(start=100, lost=900), False)
    assert replay([100, 100], policy=never, total_steps=86).parts == Parts(useful=86, start=10, ending=3.5)
    assert not replay([100, 100], policy=never, total_steps=87).done


def test_the_last_policy_saves_as_often_as_sdjob_s_own_rule_says():
    by_young, by_upload = (goodput.policies(costs, mean_s=3600)[-1] for costs in (COSTS, replace(COSTS, commit_s=90)))
    assert by_young.every_seconds == 60  # sqrt(2 x 0.5 x 3600)
    assert by_upload.every_seconds == 90


@pytest.mark.parametrize("law", [goodput.exponential, goodput.weibull, goodput.bathtub])
def test_laws_have_the_mean_that_is_asked_for_and_a_seed(law):
    drawn = list(itertools.islice(law(np.random.default_rng(1), 3600.0), 40_000))
    assert np.mean(drawn) == pytest.approx(3600, rel=0.03)
    assert drawn[:5] == list(itertools.islice(law(np.random.default_rng(1), 3600.0), 5))


def test_a_bathtub_takes_many_early_and_the_rest_at_the_end():
    drawn = np.array(list(itertools.islice(goodput.bathtub(np.random.default_rng(1), 8.4 * 3600), 10_000))) / 3600
    assert np.mean(drawn < 3) == pytest.approx(0.6, abs=0.05)  # of the 1,442 published ones 56 % are
    assert np.mean((drawn > 6) & (drawn < 18)) < 0.05
    assert drawn.max() < 27


def test_traces_are_read_in_both_forms(tmp_path: Path):
    ticks = {"metadata": {"gap_seconds": 32}, "data": [0, 1, 1, 0, 0, 1, 1, 1]}
    (tmp_path / "a.json").write_text(json.dumps(ticks))
    (tmp_path / "a.csv").write_text("# seconds\n64\n96.5\n\n")
    assert goodput.read_trace(tmp_path / "a.json") == [64, 96]
    assert goodput.read_trace(tmp_path / "a.csv") == [64, 96.5]
    law = goodput.from_trace([1.0, 2.0, 3.0])
    begins = {tuple(itertools.islice(law(np.random.default_rng(seed), 0), 4)) for seed in range(20)}
    assert begins == {(1, 2, 3, 1), (2, 3, 1, 2), (3, 1, 2, 3)}


def test_policies_see_the_same_machines_and_seeds_repeat():
    plan = goodput.Plan(COSTS, mean_s=300, total_steps=2000, repeats=3, seed=5)
    first, again = (plan.outcomes(goodput.exponential, replace(KILLED, name=name)) for name in ("one", "another"))
    assert first == again
    assert len({outcome.share for outcome in first}) == 3

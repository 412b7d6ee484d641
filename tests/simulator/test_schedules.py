"""The real commit, restore and prune code under schedules that are drawn from seeds, and under all short ones.

A schedule that fails is named in the failure: `PYTHONPATH=tests .venv/bin/python -m simulator --seed N` plays it again and
prints it call by call. `make simulate` plays a million.
"""

import sys
import time
from contextlib import suppress

import pytest

from simulator.enumerated import KINDS, ScriptedDirector
from simulator.histories import play_seed
from simulator.scheduler import Scheduler
from simulator.tally import tally_of

SEEDS, A_PART = 7500, 250  # the short histories are 2,500 more


@pytest.mark.parametrize("first", range(0, SEEDS, A_PART))
def test_schedules_from_seeds(first, capsys):
    started_s = time.monotonic()
    tally = tally_of((f"seed {seed}", play_seed(seed)) for seed in range(first, first + A_PART))
    with capsys.disabled():
        sys.stdout.write(f"\n{tally.sentence(time.monotonic() - started_s)}\n")
    assert not tally.failures, tally.failure_lines()
    assert len(tally.ways) > 0.9 * A_PART
    assert len(tally.states) > 10 * A_PART


@pytest.mark.parametrize("kind", KINDS)
def test_all_short_histories(kind, capsys):
    started_s = time.monotonic()
    tally = tally_of((f"{kind} {number}: {case.script}", case.play()) for number, case in enumerate(KINDS[kind]()))
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {tally.sentence(time.monotonic() - started_s)}\n")
    assert not tally.failures, tally.failure_lines()
    assert tally.schedules > 40


def test_a_seed_is_a_schedule():
    """The same to the last call; and no other seed's."""
    for seed in range(20):
        assert play_seed(seed, trace=True).trace == play_seed(seed, trace=True).trace
    assert play_seed(1, trace=True).trace != play_seed(2, trace=True).trace


def test_an_error_of_the_simulator_itself_is_not_for_the_code_under_test():
    """It is raised between two calls of an actor, which catches what it can."""

    def judge():
        if scheduler.decisions == 2:
            raise ZeroDivisionError

    def actor():
        with suppress(Exception):
            scheduler.yield_()

    scheduler = Scheduler(ScriptedDirector({}), on_decision=judge)
    scheduler.spawn("actor", actor)
    with pytest.raises(ZeroDivisionError):
        scheduler.run()

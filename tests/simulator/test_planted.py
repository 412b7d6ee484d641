"""The simulator finds what it should find: mistakes that are put into the real code, each by the rule that forbids it."""

import sys

import pytest

from simulator.enumerated import KINDS
from simulator.histories import play_seed
from simulator.planted import PLANTED

RULES = {
    "nonce ignored": "order",
    "refusal taken for success": "whole",
    "prune without a look": "kept",
    "no hash check": "restored",
    "listing believed": "honest",
    "restore chosen before the claim": "restored",
}
SEEDS = 1500


def found(*, rule: str) -> str | None:
    """The first schedule that shows it: a seed, or a short history."""
    for seed in range(SEEDS):
        if any(violation.startswith(rule) for violation in play_seed(seed).violations):
            return f"seed {seed}"
    for kind in KINDS:
        for number, case in enumerate(KINDS[kind]()):
            if any(violation.startswith(rule) for violation in case.play().violations):
                return f"{kind} {number}"
    return None


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake, capsys):
    with PLANTED[mistake]():
        where = found(rule=RULES[mistake])
    with capsys.disabled():
        sys.stdout.write(f"\n{mistake}: found by {where}\n")
    assert where is not None

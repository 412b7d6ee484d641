"""How often machines are taken away, how far apart commits are best, and what both cost a run.

Young's and Daly's rule (https://doi.org/10.1145/361147.361115, https://doi.org/10.1016/j.future.2004.11.016): with a save that
costs C seconds and an interruption every M seconds on average, least time is lost where saves are sqrt(2 C M) apart.
benchmarks/goodput_model.py plays the same second by second; tests/unit/benchmarks/test_interruptions.py holds this sum to it.
"""

import math
from dataclasses import dataclass

# What is taken for a machine before its run has shown anything. Spot: preemptible machines of GCE lived 24 h at most,
# https://cloud.google.com/compute/docs/instances/preemptible. Else: 419 unplanned interruptions of 16,384 GPUs, 8 a host, in 54
# days (arXiv 2407.21783, section 3.3.4): 2048 x 54 x 24 / 419.
SPOT_HOURS, OTHER_HOURS = 24.0, 6334.0
FIRST_S = 60.0  # until a save has been measured
SHORTEST_S, LONGEST_S = 10.0, 3600.0  # an hour's work is more than anybody expects to lose


@dataclass(frozen=True)
class Save:
    """What a save was to the training beside it."""

    cost_s: float
    upload_s: float


def interval_s(save: Save | None, *, interrupted_every_s: float) -> float:
    """Seconds between two commits: never shorter than an upload, which would only have the next one skipped."""
    if save is None:
        return FIRST_S
    best_s = math.sqrt(2 * save.cost_s * interrupted_every_s)
    return max(min(max(best_s, SHORTEST_S), LONGEST_S), save.upload_s)


def known_every_s(*, spot: bool, machines: int) -> float:
    """A gang is interrupted by any of its machines."""
    return 3600 * (SPOT_HOURS if spot else OTHER_HOURS) / machines


@dataclass(frozen=True)
class Losses:
    """Of a whole run, in the mean."""

    interruptions: float
    lost_s: float
    """Steps that are trained again."""

    starts_s: float
    """The first start, and one after each interruption, the restore with it."""

    stalls_s: float
    """Training stands still while a save is copied, and at the end until the last one is committed."""

    @property
    def total_s(self) -> float:
        return self.lost_s + self.starts_s + self.stalls_s


def losses(
    training_s: float, *, every_s: float, commit_every_s: float, start_s: float, restore_s: float, stall_s: float,
    commit_s: float, saved_in_s: float | None,
) -> Losses:  # fmt: skip
    """`every_s`: between interruptions. `saved_in_s`: the notice, where a save fits it, and nothing is lost but that time."""
    stalls_s = stall_s * training_s / commit_every_s + commit_s
    again_s = commit_every_s / 2 + commit_s if saved_in_s is None else saved_in_s
    # Each interruption costs time in which there may be another: n = (base + n x cost) / every.
    base_s, cost_s = start_s + training_s + stalls_s, start_s + restore_s + again_s
    interruptions = base_s / max(every_s - cost_s, 1.0)
    return Losses(interruptions, interruptions * again_s, start_s + interruptions * (start_s + restore_s), stalls_s)

"""Pairwise tables: every two values of every two factors meet in some row, in far fewer rows than the full product."""

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

CANDIDATES = 60  # random rows to take the best of: more would make few rows fewer

Row = dict[str, Any]


def pairwise_rows(factors: Mapping[str, Sequence[Any]], *, seed: int = 0) -> list[Row]:
    """The same rows for the same factors and seed."""
    rng = random.Random(seed)
    wanted = {
        pair
        for (one, first), (two, second) in combinations(factors.items(), 2)
        for pair in ((one, i, two, j) for i in range(len(first)) for j in range(len(second)))
    }
    rows: list[Row] = []
    while wanted:
        best = max((random_row(factors, rng=rng) for _ in range(CANDIDATES)), key=lambda row: len(wanted & pairs_of(row)))
        wanted -= pairs_of(best)
        rows.append({name: factors[name][level] for name, level in best.items()})
    return rows


def random_row(factors: Mapping[str, Sequence[Any]], *, rng: random.Random) -> dict[str, int]:
    return {name: rng.randrange(len(values)) for name, values in factors.items()}


def pairs_of(row: Mapping[str, int]) -> set[tuple[str, int, str, int]]:
    return {(one, i, two, j) for (one, i), (two, j) in combinations(row.items(), 2)}

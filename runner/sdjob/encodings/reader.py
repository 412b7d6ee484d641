"""Encodings by the numbers of pictures and captions: out of mapped files, of which a few are open at a time.

What is held of each picture is where its entry lies, some bytes; an entry is read when a step asks for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdjob.encodings.plan import SHARD_ENTRIES, Group, Plan
from sdjob.encodings.shard import Rows, ShardFile, mapped_shard, widened

OPEN_SHARDS = 64  # each is a file descriptor
Arrays = dict[str, NDArray[np.float32]]
mapped_lately = lru_cache(OPEN_SHARDS)(mapped_shard)  # files never change, and their names are their content's


def with_axis(name: str, axis: str) -> str:
    """`mean_CHW` of one entry is `mean_BCHW` of several."""
    stem, _, axes = name.rpartition("_")
    return f"{stem}_{axis}{axes}"


def without_axis(name: str, axis: str) -> str:
    stem, _, axes = name.rpartition("_")
    return f"{stem}_{axes.removeprefix(axis)}"


def write_table(path: Path, *, sha256_by_shard: Mapping[str, str]) -> None:
    """Which bits a run trains on. Whole or not there, as others wait for it."""
    unnamed = path.with_name(f"{path.name}.new")
    unnamed.write_text(json.dumps({"format": 1, "shards": dict(sorted(sha256_by_shard.items()))}, indent=0), encoding="utf-8")
    unnamed.replace(path)


def read_table(path: Path) -> dict[str, str]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content["shards"]


@dataclass(frozen=True)
class GroupRows:
    """Where the entries of a group lie, by their place in it."""

    paths: tuple[Path, ...]

    def entry(self, place: int) -> Arrays:
        shard = mapped_lately(self.paths[place // SHARD_ENTRIES])
        return {name: row_of(rows, place % SHARD_ENTRIES) for name, rows in shard.items()}


def row_of(rows: Rows, number: int) -> NDArray[np.float32]:
    return widened(rows.values_E[number], dtype=rows.dtype)


@dataclass(frozen=True)
class Encodings:
    """Any number of threads may read."""

    plan: Plan
    _groups: dict[str, GroupRows] = field(default_factory=dict[str, GroupRows])
    _group_N: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    """Of each picture: which of the groups that are not flipped has it."""

    _place_N: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """And where in that group."""

    @classmethod
    def of(cls, plan: Plan, *, folder: Path, sha256_by_shard: Mapping[str, str]) -> "Encodings":
        def path(name: str) -> Path:
            return folder / ShardFile(name, sha256_by_shard[name]).file_name

        groups = {group.key: GroupRows(tuple(path(shard.name) for shard in plan.of_group(group))) for group in plan.groups}
        return cls(plan, groups, *places_of(plan))

    def picture(self, number: int, *, flipped: bool) -> Arrays:
        group = self.plan.groups[self._group_N[number] + flipped]
        return self._groups[group.key].entry(int(self._place_N[number]))

    def caption(self, picture: int, *, choice: int | None) -> Arrays | None:
        """Of a picture's so-and-so-manieth caption; None: of the empty one. None where the text encoder is trained."""
        if self.plan.captions is None:
            return None
        return self._groups[self.plan.groups[-1].key].entry(self.plan.captions.of(picture, choice=choice))


def places_of(plan: Plan) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    plain: list[tuple[int, Group]] = [
        (number, group) for number, group in enumerate(plan.groups) if group.kind == "pictures" and not group.flipped
    ]
    num_pictures = sum(len(group.members_E) for _, group in plain)
    group_N, place_N = np.zeros(num_pictures, np.int16), np.zeros(num_pictures, np.int32)
    for number, group in plain:
        group_N[group.members_E] = number
        place_N[group.members_E] = np.arange(len(group.members_E))
    return group_N, place_N

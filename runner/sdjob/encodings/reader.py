"""Encodings by the numbers of pictures and captions: out of mapped files, of which a few are open at a time.

What is held of each picture is where its entry lies, some bytes; an entry is read when a step asks for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdjob.data.buckets import TargetSize
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
    """Where the entries of a group lie."""

    group: Group
    paths: tuple[Path, ...]

    def entry(self, member: int) -> Arrays:
        place = int(np.searchsorted(self.group.members_E, member))
        assert self.group.members_E[place] == member, "no other entry takes its place"
        shard = mapped_lately(self.paths[place // SHARD_ENTRIES])
        return {name: row_of(rows, place % SHARD_ENTRIES) for name, rows in shard.items()}


def row_of(rows: Rows, number: int) -> NDArray[np.float32]:
    return widened(rows.values_E[number], dtype=rows.dtype)


@dataclass(frozen=True)
class Encodings:
    """Any number of threads may read."""

    plan: Plan
    _pictures: dict[tuple[TargetSize, bool], GroupRows]
    """By size, and whether they are flipped."""

    _captions: GroupRows | None

    @classmethod
    def of(cls, plan: Plan, *, folder: Path, sha256_by_shard: Mapping[str, str]) -> "Encodings":
        def rows(group: Group) -> GroupRows:
            files = (ShardFile(shard.name, sha256_by_shard[shard.name]) for shard in plan.of_group(group))
            return GroupRows(group, tuple(folder / file.file_name for file in files))

        pictures = {(group.target, group.flipped): rows(group) for group in plan.groups if group.target is not None}
        captions = [rows(group) for group in plan.groups if group.kind == "captions"]
        return cls(plan, pictures, captions[0] if captions else None)

    def picture(self, number: int, *, target: TargetSize, flipped: bool) -> Arrays:
        return self._pictures[target, flipped].entry(number)

    def caption(self, picture: int, *, choice: int | None) -> Arrays | None:
        """Of a picture's so-and-so-manieth caption; None: of the empty one. None where the text encoder is trained."""
        if self.plan.captions is None or self._captions is None:
            return None
        return self._captions.entry(self.plan.captions.of(picture, choice=choice))

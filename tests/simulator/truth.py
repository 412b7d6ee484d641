"""What the log says, folded a second time and apart from the code under test: the checker believes nobody else."""

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Literal

JSON = json.JSONDecoder()
State = Literal["live", "retired", "quarantined", "superseded"]


@dataclass
class TrueCommit:
    slot: int
    epoch: int
    step: int
    digest: str
    keys: frozenset[str]
    """Its manifest's and its files'."""

    state: State = "live"


@dataclass
class Truth:
    """Every slot as it was written, whatever became of its bytes later."""

    slots: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    commits: dict[int, TrueCommit] = field(default_factory=dict[int, TrueCommit])
    epoch: int = 0
    done_digest: str | None = None

    @property
    def live(self) -> list[TrueCommit]:
        """Newest last."""
        return [commit for commit in self.commits.values() if commit.state == "live"]

    def add(self, fields: dict[str, Any], *, keys: frozenset[str]) -> None:
        self.slots.append(fields)
        match fields["kind"]:
            case "claim":
                self.epoch = fields["epoch"]
            case "commit":
                self._commit(fields, keys=keys)
            case "retire":
                for number in fields["slots"]:
                    self._mark(number, "retired")
            case "quarantine":
                self._mark(fields["slot"], "quarantined")
            case "done":
                self.done_digest = fields["digest"]

    def live_at(self, length: int, *, keys: dict[int, frozenset[str]]) -> list[TrueCommit]:
        """As of the first so many slots."""
        earlier = Truth()
        for fields in self.slots[:length]:
            earlier.add(fields, keys=keys.get(fields["number"], frozenset()))
        return earlier.live

    def without_quarantines(self, lost: Container[int], *, keys: dict[int, frozenset[str]]) -> "Truth":
        """As it stands for whoever cannot read these slots: what a quarantine among them took back holds for him."""
        known = Truth()
        for fields in self.slots:
            if fields["kind"] != "quarantine" or fields["number"] not in lost:
                known.add(fields, keys=keys.get(fields["number"], frozenset()))
        return known

    def _commit(self, fields: dict[str, Any], *, keys: frozenset[str]) -> None:
        for commit in self.live:
            if commit.step >= fields["step"]:
                commit.state = "superseded"
        self.done_digest = None
        number = fields["number"]
        self.commits[number] = TrueCommit(number, fields["epoch"], fields["step"], fields["digest"], keys)

    def _mark(self, number: int, state: State) -> None:
        self.commits[number].state = state
        if state == "quarantined" and self.commits[number].digest == self.done_digest:
            self.done_digest = None


def manifest_key(fields: dict[str, Any]) -> str:
    return f"blob/{fields['epoch']}/{fields['manifest']}"


def digest_of(files: dict[str, bytes]) -> str:
    """By the definition: sha256 over the sorted lines "name sha256"."""
    lines = "".join(f"{name} {sha256(files[name])}\n" for name in sorted(files))
    return sha256(lines.encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parsed(data: bytes) -> dict[str, Any]:
    return JSON.decode(data.decode())

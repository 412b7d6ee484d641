"""Ledgers that no run wrote: an attempt is told what it does, and keeps both its records and the truth about its seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdjob.ledger.read import AttemptLedger, Record
from sdjob.ledger.seconds import BUCKETS, Bucket
from sdjob.ledger.write import SCHEMA, json_line, ledger_key

BEGIN_S = 1_763_900_000.0
Truth = dict[Bucket, float]


@dataclass
class MadeUp:
    """One attempt as it goes; each method is something that it does, with the seconds that this takes."""

    attempt: int
    now_s: float
    step: int = 0
    """Steps that are done."""

    total_steps: int = 1000
    step_s: float = 1.0
    events: list[Record] = field(default_factory=list[Record])
    metrics: list[Record] = field(default_factory=list[Record])
    truth: Truth = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0.0))
    unsaved_s: float = 0.0
    """Training since the last commit."""

    def spend(self, bucket: Bucket, seconds: float) -> None:
        self.now_s += seconds
        self.truth[bucket] += seconds
        if bucket == "train":
            self.unsaved_s += seconds

    def tell(self, kind: str, **fields: Any) -> None:
        self.events.append({"time_s": self.now_s, "kind": kind, **fields})

    def phase(self, name: str, bucket: Bucket, seconds: float) -> None:
        self.spend(bucket, seconds)
        self.tell("phase", name=name, seconds=seconds)

    def start(self, *, imports_s: float = 0.5, stage_s: float = 0.0, peers_s: float = 0.0) -> None:
        """To the claim: what was before it is told after it, with its own times."""
        self.phase("imports", "start", imports_s)
        self.phase("stage", "stage", stage_s)
        self.phase("peers", "waiting", peers_s)
        self.phase("claim", "start", 0.25)
        self.events.insert(0, {"time_s": self.now_s, "kind": "start", "host": "pod-a"})

    def prepare(self, *, stage_s: float = 1.0, restore_s: float = 0.5, load_s: float = 2.0) -> None:
        """From the claim to the trainer that is ready."""
        self.phase("stage", "stage", stage_s)
        if self.step:
            self.tell("restored", step=self.step, size_bytes=100)
        self.phase("restore", "restore", restore_s)
        self.tell("train", start_step=self.step, total_steps=self.total_steps)
        self.phase("load", "start", load_s)
        self.tell("ready", step=self.step, fingerprint={"backend": "flax", "versions": {"jax": "1"}}, inexact=[])

    def warm_up(self, *, compile_s: float = 3.0, other_s: float = 0.5) -> None:
        """What the first step takes longer than the others."""
        self.phase("compile", "compile", compile_s)
        self.spend("start", other_s)

    def train(self, steps: int, **fields: Any) -> None:
        for _ in range(steps):
            self.spend("train", self.step_s)
            self.step += 1
            loss = 1 / (1 + self.step)
            told = {"loss": loss, "learning_rate": 1e-4, "images_per_s": 4 / self.step_s, "step_s": self.step_s, **fields}
            self.metrics.append({"time_s": self.now_s, "step": self.step, **told})

    def validate(self, seconds: float, *, prompts: Sequence[str] = ("a red circle",)) -> None:
        self.spend("validate", seconds)
        self.tell("samples", step=self.step, seconds=seconds, prompts=list(prompts))

    def save(self, *, stall_s: float = 0.25) -> None:
        """Copied, and committed in no time."""
        self.spend("save", stall_s)
        self.unsaved_s = 0.0
        self.tell("commit", step=self.step, digest=f"{self.step:064x}", size_bytes=100, seconds=0.5, stall_s=stall_s)

    def finish(self, *, stall_s: float = 0.25, upload_s: float = 2.0, publish_s: float = 3.0) -> None:
        self.spend("save", upload_s)
        self.save(stall_s=stall_s)
        self.phase("publish", "publish", publish_s)
        self.end(0, "done")

    def stop(self, *, upload_s: float = 1.0) -> None:
        """On request, after a step."""
        self.tell("stopping", seconds_left=10.0)
        self.spend("save", upload_s)
        self.save()
        self.end(75, "stopped on request.")

    def end(self, exit_code: int, why: str) -> None:
        self.tell("end", exit_code=exit_code, why=why)
        self._lose()

    def kill(self, *, after_s: float = 0.0) -> None:
        """`after_s` its last word; the ledger does not know of them."""
        self.spend("train" if self.metrics else "start", after_s)
        self._lose()

    def _lose(self) -> None:
        self.truth["train"] -= self.unsaved_s
        self.truth["lost"] += self.unsaved_s
        self.unsaved_s = 0.0

    def ledger(self) -> AttemptLedger:
        return AttemptLedger(attempt=self.attempt, events=self.events, metrics=self.metrics)


def written(ledgers: Sequence[AttemptLedger], *, place: Path, lines: int = 2000, schema: int = SCHEMA) -> None:
    """As objects at a place, so many lines each."""
    for ledger in ledgers:
        for kind, records in (("events", ledger.events), ("metrics", ledger.metrics)):
            for number, first in enumerate(range(0, len(records), lines), start=1):
                part = [{"schema": schema, **records[first]}, *records[first + 1 : first + lines]]
                path = place / ledger_key(kind, attempt=ledger.attempt, number=number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(map(json_line, part)), encoding="utf-8")

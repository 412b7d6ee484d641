"""What an attempt's records say of when it did what, as far as they can be believed. Pure.

Records come from a place that others write to: a field may be missing, of another type, or nonsense.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, cast

from sdjob.ledger.read import AttemptLedger, Record, is_number, is_step

STOPPED = (75, 79)  # exit codes of an attempt that saved before it left: asked to stop, and max_hours
STEPS_FOR_PACE = 50


@dataclass(frozen=True)
class Moments:
    """Of one attempt; Unix seconds, sorted. None for what it never came to, or did not tell."""

    ledger: AttemptLedger

    # ---- its ends ------------------------------------------------------------------------------------------------------------

    @property
    def began_s(self) -> float | None:
        """When its process was started: before its first record, by what that says of the time before it."""
        begins_s = [record["time_s"] - seconds_in(record) for record in self.ledger.events if record.get("kind") == "phase"]
        return min([*begins_s, *self._times_s()], default=None)

    @property
    def last_word_s(self) -> float | None:
        return max(self._times_s(), default=None)

    @property
    def is_training(self) -> bool:
        """False for what only tidied up: `checkpoints prune` claims the run too, and says so."""
        return not any("verb" in event for event in self.of("start"))

    @property
    def end(self) -> Record | None:
        return next(reversed(list(self.of("end"))), None)

    @property
    def exit_code(self) -> int | None:
        code = self.end.get("exit_code") if self.end else None
        return code if isinstance(code, int) else None

    def ended_by(self, later: "Moments") -> float | None:
        """When it ended, by what the next attempt was told of the process before it: where that was this one."""
        told: object = next((event["before"] for event in later.of("start") if "before" in event), None)
        if not isinstance(told, dict) or self.last_word_s is None:
            return None
        began_s, ended_s = (cast("Record", told).get(name) for name in ("began_s", "ended_s"))
        if not (is_number(began_s) and is_number(ended_s)):
            return None
        return ended_s if began_s <= self.last_word_s <= ended_s else None

    # ---- its steps -----------------------------------------------------------------------------------------------------------

    @property
    def start_step(self) -> int | None:
        """What was done before it trained; None where it did not come so far."""
        told = [
            step
            for kind in ("train", "restored")
            for event in self.of(kind)
            if (step := whole(event, "start_step", "step")) is not None
        ]
        first = self.ledger.metrics[0]["step"] - 1 if self.ledger.metrics else None
        return told[0] if told else first

    @property
    def total_steps(self) -> int | None:
        return next((total for event in self.of("train") if (total := whole(event, "total_steps")) is not None), None)

    @property
    def reached_step(self) -> int | None:
        return max((record["step"] for record in self.ledger.metrics), default=None)

    @property
    def committed_step(self) -> int | None:
        """The last that it committed itself."""
        return max((step for event in self.of("commit") if (step := whole(event, "step")) is not None), default=None)

    def committed_at_s(self, step: int) -> float | None:
        return next((event["time_s"] for event in self.of("commit") if event.get("step") == step), None)

    def stepped_s(self) -> dict[int, float]:
        """When each step was over."""
        return {record["step"]: record["time_s"] for record in self.ledger.metrics}

    def pace_s(self) -> float:
        """What a step takes, by the first ones; 0 before the second."""
        times_s = sorted(self.stepped_s().values())[: STEPS_FOR_PACE + 1]
        return median(later - sooner for sooner, later in pairwise(times_s)) if len(times_s) > 1 else 0.0

    # ---- all the rest --------------------------------------------------------------------------------------------------------

    def of(self, kind: str) -> Iterator[Record]:
        return (event for event in self.ledger.events if event.get("kind") == kind)

    def stopping_s(self) -> float | None:
        """When it was asked to stop."""
        told = [event["time_s"] for event in self.of("stopping")]
        if told:
            return min(told)
        return max(self.stepped_s().values(), default=None) if self.exit_code in STOPPED else None

    def _times_s(self) -> Sequence[float]:
        return [record["time_s"] for record in (*self.ledger.events, *self.ledger.metrics)]


def seconds_in(record: Record, name: str = "seconds") -> float:
    """0 where it has none that can be."""
    seconds = record.get(name)
    return float(seconds) if is_number(seconds) and seconds > 0 else 0.0


def whole(record: Record, *names: str) -> int | None:
    """The first of these fields that is a step."""
    found: list[Any] = [record.get(name) for name in names]
    return next((value for value in found if is_step(value)), None)

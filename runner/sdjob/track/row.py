"""What a tracker is told of one optimizer step: the same from a running attempt as from the ledger of an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

VALIDATION = {"held_out_loss": "validation/loss"}
NOT_METRICS = {"step", "time_s", "schema", "not_finite"}


@dataclass(frozen=True)
class Picture:
    """A validation picture, which lies at the run's place."""

    key: str
    name: str
    """PP-II: the prompt's number and the picture's."""

    prompt: str


@dataclass(frozen=True)
class Row:
    step: int
    time_s: float
    """Unix time of the training, whenever the tracker hears of it."""

    values: Mapping[str, float]
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Final:
    """How a finished run ended."""

    step: int
    digest: str


def row_of(record: Mapping[str, Any]) -> Row:
    """A row of a metrics record: every number in it, those too that JSON does not know."""
    numbers = {name: float(value) for name, value in record.items() if is_metric(name, value)}
    not_finite = cast("dict[str, str]", record.get("not_finite", {}))
    numbers |= {name: float(text) for name, text in not_finite.items() if "." not in name}
    return Row(record["step"], record["time_s"], {shown_as(name): number for name, number in numbers.items()})


def shown_as(name: str) -> str:
    return VALIDATION.get(name, f"train/{name}")


def is_metric(name: str, value: Any) -> bool:
    return name not in NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool)

"""What a process knows of the attempt before which it outlived, told to the next one: who is killed cannot tell its own end."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from sdjob.ledger.read import is_number

VARIABLE = "SDJOB_BEFORE"


@dataclass(frozen=True)
class Before:
    began_s: float
    """When its process was started, in Unix time, as is the next."""

    ended_s: float
    exit_code: int
    """128 and the signal's number where one ended it."""

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def before_here(environment: Mapping[str, str]) -> dict[str, Any]:
    """As a field of the ledger's `start`; none where nobody told, or told nonsense."""
    try:
        told: object = json.loads(environment.get(VARIABLE, "null"))
    except ValueError:
        return {}
    if not isinstance(told, dict):
        return {}
    known = {name: cast("dict[str, Any]", told).get(name) for name in ("began_s", "ended_s", "exit_code")}
    return {"before": known} if all(is_number(value) for value in known.values()) else {}

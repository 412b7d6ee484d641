"""A model from faulty data, so that the rules about combinations can speak of the fields that are right."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import FieldPath, Finding
from sdjob.spec.translate import findings_of, value_at

MOST_PASSES = 50

# Stand-ins for required fields that are missing or wrong; no rule's verdict about them is reported.
STAND_INS: dict[str, Any] = {
    "apiVersion": "sdjob/v1",
    "name": "stand-in",
    "model": {"source": "stand-in"},
    "data": {"source": "stand-in"},
    "train": {"method": "lora", "steps": 1},
    "method": "lora",
    "source": "stand-in",
    "caption": "stand-in",
    "to": "stand-in",
    "prompts": ["stand-in"],
    "mount": "/stand-in",
    "width": 512,
    "height": 512,
}


@dataclass(frozen=True)
class Mended:
    """The model, what had to be mended for it, and where."""

    job: JobSpec
    findings: list[Finding]
    broken: frozenset[FieldPath]


def mended(data: dict[str, Any]) -> Mended:
    """Validates; takes out what is wrong, and validates again until a model stands."""
    copy: Any = json.loads(json.dumps(data))
    findings: list[Finding] = []
    broken: set[FieldPath] = set()
    for _ in range(MOST_PASSES):
        try:
            return Mended(JobSpec.model_validate_json(json.dumps(copy)), findings, frozenset(broken))
        except ValidationError as error:
            found = findings_of(error.errors(include_url=False), data=copy)
            findings += [finding for finding in found if not overlaps(finding.path, broken=broken)]
            broken |= {path for finding in found for path in reach(finding)}
            for detail in found:
                mend(copy, path=detail.path)
            put_stand_ins(copy, error=error)
    raise AssertionError(f"the job file could not be mended: {findings}")


def reach(finding: Finding) -> list[FieldPath]:
    """The field itself, and the one whose misspelling it probably is."""
    return [finding.path] + ([(*finding.path[:-1], finding.nearest)] if finding.nearest else [])


def mend(data: Any, *, path: FieldPath) -> None:
    """Takes the value out; a whole list for one of its items, since the others must keep their numbers."""
    first_index = next((depth for depth, step in enumerate(path) if isinstance(step, int)), len(path))
    path = path[:first_index]
    holder = value_at(data, path=path[:-1])
    if path and isinstance(holder, dict):
        cast("dict[str | int, Any]", holder).pop(path[-1], None)


def put_stand_ins(data: Any, *, error: ValidationError) -> None:
    for detail in error.errors(include_url=False):
        holder = value_at(data, path=detail["loc"][:-1])
        if detail["type"] == "missing" and isinstance(holder, dict):
            name = str(detail["loc"][-1])
            cast("dict[str, Any]", holder).setdefault(name, STAND_INS[name])


def lies_within(path: FieldPath, *, broken: Collection[FieldPath]) -> bool:
    return any(path[: len(other)] == other for other in broken)


def overlaps(path: FieldPath, *, broken: Collection[FieldPath]) -> bool:
    """Whether a field lies within something broken, or holds it."""
    return any(path[: len(other)] == other[: len(path)] for other in broken)

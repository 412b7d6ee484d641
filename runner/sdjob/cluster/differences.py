"""How a job in the cluster differs from the one that is submitted. Pure."""

import difflib
from collections.abc import Iterator
from typing import Any, cast

from sdjob.cluster.names import DIGEST_ANNOTATION, Manifest

MOST_LINES = 60


def differences(wanted: Any, live: Any, *, path: str = "") -> Iterator[str]:
    """Fields that are wanted and are otherwise in the cluster; what a cluster adds by itself is none."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        theirs = cast("Manifest", live)
        for key, value in cast("Manifest", wanted).items():
            if key != DIGEST_ANNOTATION:
                yield from differences(value, theirs.get(key), path=f"{path}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(live, list):
        ours, theirs = cast("list[Any]", wanted), cast("list[Any]", live)
        for number in range(max(len(ours), len(theirs))):
            pair = [items[number] if number < len(items) else None for items in (ours, theirs)]
            yield from differences(*pair, path=f"{path}[{number}]")
    elif wanted != live:
        yield f"{path}: {shown(live)} -> {shown(wanted)}"


def shown(value: Any) -> str:
    return "absent" if value is None else str(value)


def job_differences(wanted: str, live: str) -> list[str]:
    """Lines of the resolved job, as `diff -u` prints them."""
    lines = difflib.unified_diff(live.splitlines(), wanted.splitlines(), "in the cluster", "this job", lineterm="", n=1)
    return list(lines)


def shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} lines more"]

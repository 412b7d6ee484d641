"""A page is shown to others: nothing secret goes into it, whoever let it into the run's place. Pure."""

from dataclasses import replace
from typing import Any, TypeVar, cast

from sdjob.core.log import redacted
from sdjob.report.gather import Gathered
from sdjob.spec.secrecy import SECRETS

HIDDEN = "***"
DEEPEST = 20  # nothing of ours is; what somebody else nested further is left out
Value = TypeVar("Value")


def clean(run: Gathered, *, secrets: tuple[str, ...]) -> Gathered:
    """secrets: values to blank out; what looks like a token goes too."""
    return replace(
        run,
        name=cleaned(run.name, secrets=secrets),
        place=cleaned(run.place, secrets=secrets),
        ledgers=[replace(ledger, events=cleaned(ledger.events, secrets=secrets)) for ledger in run.ledgers],
        job_text=cleaned(run.job_text, secrets=secrets),
        published=tuple(cleaned(list(run.published), secrets=secrets)),
        troubles=cleaned(run.troubles, secrets=secrets),
    )


def cleaned(value: Value, *, secrets: tuple[str, ...]) -> Value:
    """The same, in every text within. A picture's own bytes are no text."""
    return cast("Value", _cleaned(value, secrets=secrets, depth=0))


def _cleaned(value: Any, *, secrets: tuple[str, ...], depth: int) -> Any:
    if isinstance(value, str):
        return value if value.startswith("data:image/") else without_tokens(redacted(value, secrets=secrets))
    if depth == DEEPEST:
        return None
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        pairs = ((cleaned(name, secrets=secrets), _cleaned(inner, secrets=secrets, depth=depth + 1)) for name, inner in items)
        return dict(pairs)
    if isinstance(value, list):
        return [_cleaned(inner, secrets=secrets, depth=depth + 1) for inner in cast("list[Any]", value)]
    return value


def without_tokens(text: str) -> str:
    for pattern in SECRETS.values():
        text = pattern.sub(HIDDEN, text)
    return text

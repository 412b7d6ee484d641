"""Rows of steps that were trained before: every attempt's metrics and validation pictures, read from the run's place."""

import re
from collections.abc import Iterator, Sequence

from sdjob.core.retry import Backoff, with_retries
from sdjob.ledger.read import AttemptLedger, Record, read_ledger
from sdjob.store.base import ObjectStore, TransientStoreError
from sdjob.track.row import Picture, Row, row_of

PICTURE = re.compile(r"attempts/(\d{4,})/samples/(\d{8,})/((\d{2,})-\d{2,})\.png")


def past_rows(
    store: ObjectStore, *, after: int, through: int, prompts: Sequence[str], backoff: Backoff | None = None
) -> Iterator[Row]:
    """Steps `after` < step <= `through`, in order. A step that was trained more than once counts as its last attempt saw it:
    that is the one whose state the run goes on from.

    prompts: of the job as it is now, for attempts that did not record theirs.
    """
    if after >= through:
        return
    backoff = backoff or Backoff()
    ledgers = read_ledger(store, backoff=backoff)
    keys = with_retries(lambda: [i.key for i in store.list("attempts/")], transient=(TransientStoreError,), backoff=backoff)
    pictures = drawn_pictures(keys, ledgers=ledgers, prompts=prompts)
    records: dict[int, Record] = {record["step"]: record for ledger in ledgers for record in ledger.metrics}
    for step in sorted(step for step in records if after < step <= through):
        row = row_of(records[step])
        yield Row(row.step, row.time_s, row.values, pictures.get(step, ()))


def drawn_pictures(
    keys: Sequence[str], *, ledgers: Sequence[AttemptLedger], prompts: Sequence[str]
) -> dict[int, tuple[Picture, ...]]:
    """By step; of each picture the one that was drawn last."""
    spoken = {
        (ledger.attempt, event["step"]): event["prompts"]
        for ledger in ledgers
        for event in ledger.events
        if event.get("kind") == "samples" and "prompts" in event
    }
    by_step: dict[int, dict[str, Picture]] = {}
    for found in sorted(filter(None, map(PICTURE.fullmatch, keys)), key=lambda match: int(match[1])):
        attempt, step, number = int(found[1]), int(found[2]), int(found[4])
        known: Sequence[str] = spoken.get((attempt, step), prompts)
        prompt = known[number] if number < len(known) else ""
        by_step.setdefault(step, {})[found[3]] = Picture(found[0], found[3], prompt)
    return {step: tuple(pictures[name] for name in sorted(pictures)) for step, pictures in by_step.items()}

"""Sums over a ledger: pure."""

from collections.abc import Sequence

from sdjob.ledger.read import AttemptLedger


def attempt_hours(ledger: AttemptLedger) -> float:
    """From an attempt's first record to its last. Metrics count too: a killed attempt often ends in them, long after its
    last event."""
    times_s = [record["time_s"] for record in (*ledger.events, *ledger.metrics)]
    return (max(times_s) - min(times_s)) / 3600 if times_s else 0.0


def hours_used(ledgers: Sequence[AttemptLedger]) -> float:
    """Hours of all attempts together, which is what run.max_hours limits; the time between two attempts costs nothing."""
    return sum(attempt_hours(ledger) for ledger in ledgers)

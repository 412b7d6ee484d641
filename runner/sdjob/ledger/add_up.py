"""Sums over a ledger: pure."""

from collections.abc import Sequence

from sdjob.ledger.moments import Moments
from sdjob.ledger.read import AttemptLedger


def attempt_hours(ledger: AttemptLedger) -> float:
    """From the start of an attempt's process to its last record. Metrics count too: a killed attempt often ends in them, long
    after its last event."""
    moments = Moments(ledger)
    return ((moments.last_word_s or 0.0) - (moments.began_s or 0.0)) / 3600


def hours_used(ledgers: Sequence[AttemptLedger]) -> float:
    """Hours of all attempts together, which is what run.max_hours limits; the time between two attempts costs nothing."""
    return sum(attempt_hours(ledger) for ledger in ledgers)

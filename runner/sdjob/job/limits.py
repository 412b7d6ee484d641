"""When to give up: `max_hours` over all attempts, and attempts that end again and again without a commit. Pure."""

from collections.abc import Sequence

from sdjob.core.errors import NoProgressError, TimeSpentError
from sdjob.ledger.add_up import attempt_hours, hours_used
from sdjob.ledger.read import AttemptLedger
from sdjob.spec.job import JobSpec

FRUITLESS_ATTEMPTS = 5
FRUITLESS_HOURS = 10 / 60
FRUITS = {"commit", "encodings-kept"}  # what the next attempt need not do again


def check_progress(ledgers: Sequence[AttemptLedger]) -> None:
    """Exit 70 after five attempts in a row of over 10 minutes without a commit: something is wrong that time will not mend."""
    last = ledgers[-FRUITLESS_ATTEMPTS:]
    if len(last) == FRUITLESS_ATTEMPTS and all(_is_fruitless(ledger) for ledger in last):
        raise NoProgressError(
            f"the last {FRUITLESS_ATTEMPTS} attempts ran for over 10 minutes each and committed nothing.",
            next_step="Lower checkpoint.every_steps, or give the machine a longer notice; then move this run's attempts/ away.",
        )


def _is_fruitless(ledger: AttemptLedger) -> bool:
    came_to_something = any(event["kind"] in FRUITS for event in ledger.events)
    return not came_to_something and attempt_hours(ledger) > FRUITLESS_HOURS


def hours_left(job: JobSpec, *, ledgers: Sequence[AttemptLedger]) -> float:
    """Of `run.max_hours`; infinite where there is no limit. Raises TimeSpentError where nothing is left."""
    if job.run.max_hours is None:
        return float("inf")
    left = job.run.max_hours - hours_used(ledgers)
    if left <= 0:
        raise time_spent(job, attempts=len(ledgers))
    return left


def time_spent(job: JobSpec, *, attempts: int) -> TimeSpentError:
    return TimeSpentError(
        f"run.max_hours is used up: {job.run.max_hours:g} hours over {attempts} attempt(s); what is committed stands.",
        next_step="Raise run.max_hours and run the same command again to go on.",
    )

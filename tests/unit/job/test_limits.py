"""max_hours over all attempts, and attempts that come to nothing."""

import pytest

from fakes.checkpoints import make_job
from sdjob.core.errors import NoProgressError, TimeSpentError
from sdjob.job.limits import FRUITLESS_ATTEMPTS, check_progress, hours_left
from sdjob.ledger.read import AttemptLedger


def attempt(number, *, minutes, committed=False, killed=False):
    """`killed`: its last records are metrics, and no `end`."""
    start = number * 1e6
    events = [{"kind": "start", "time_s": start}]
    metrics = []
    if committed:
        events.append({"kind": "commit", "time_s": start + 30 * minutes})
    last = {"time_s": start + 60 * minutes}
    if killed:
        metrics.append({"step": 3, **last})
    else:
        events.append({"kind": "end", **last})
    return AttemptLedger(attempt=number, events=events, metrics=metrics, torn_lines=0)


class TestProgress:
    @pytest.mark.parametrize("killed", [True, False])
    def test_five_long_attempts_without_a_commit_are_enough(self, killed):
        fruitless = [attempt(n, minutes=11, killed=killed) for n in range(FRUITLESS_ATTEMPTS)]
        with pytest.raises(NoProgressError, match=r"last 5 attempts ran for over 10 minutes each and committed nothing"):
            check_progress(fruitless)
        check_progress(fruitless[1:])

    def test_one_commit_among_them_is_progress(self):
        for lucky in range(5):
            check_progress([attempt(n, minutes=11, committed=n == lucky) for n in range(5)])

    def test_encodings_that_are_kept_are_progress(self):
        long = [attempt(n, minutes=11, killed=True) for n in range(5)]
        long[3].events.insert(1, {"kind": "encodings-kept", "shards": 1, "time_s": long[3].events[0]["time_s"]})
        check_progress(long)

    def test_only_the_last_five_count(self):
        early = [attempt(0, minutes=60, committed=True)]
        with pytest.raises(NoProgressError):
            check_progress(early + [attempt(n, minutes=11) for n in range(1, 6)])

    def test_short_attempts_are_no_sign(self):
        """Spot machines that go at once, or a store that is down, may cure themselves."""
        check_progress([attempt(n, minutes=9) for n in range(20)])


class TestHours:
    def job(self, max_hours):
        return make_job(run={"max_hours": max_hours})

    def test_no_limit(self):
        assert hours_left(self.job(None), ledgers=[attempt(1, minutes=10**6)]) == float("inf")

    def test_attempts_add_up_and_pauses_between_do_not(self):
        ledgers = [attempt(1, minutes=90), attempt(2, minutes=30, killed=True)]
        assert hours_left(self.job(3.0), ledgers=ledgers) == pytest.approx(1.0)

    @pytest.mark.parametrize("max_hours", [2.0, 1.5])
    def test_nothing_left(self, max_hours):
        ledgers = [attempt(1, minutes=90), attempt(2, minutes=30)]
        with pytest.raises(TimeSpentError, match=rf"{max_hours:g} hours over 2 attempt.*Raise run.max_hours"):
            hours_left(self.job(max_hours), ledgers=ledgers)

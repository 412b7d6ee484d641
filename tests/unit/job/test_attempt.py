"""An attempt's last words: how it ended reaches the caller, even where the ledger can no longer be written."""

import io
from types import SimpleNamespace

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, fail
from sdjob.core.errors import DeniedError, FencedError, StorageError
from sdjob.core.log import Log
from sdjob.job.attempt import Attempt
from sdjob.job.standby import Standby
from sdjob.job.stopwatch import Stopwatch
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter


class FencedAttempt(Attempt):
    def _work(self) -> None:
        for trouble in self.troubles:
            self.store.before.append(fail(trouble, method="write", key="attempts/", times=100))
        raise FencedError("another attempt owns the run now.")


def attempt(*, troubles):
    clock, store = FakeClock(), MemoryStore()
    log = Log(mode="text", stream=io.StringIO(), clock=clock)
    run = SimpleNamespace(clock=clock, log=log, standby=Standby())
    made = FencedAttempt(
        run, None, None, LedgerWriter(store, attempt=1, clock=clock), 3600.0, None, Stopwatch(clock, age_s=2.0), None, None
    )
    made.store, made.troubles = store, troubles
    return made, store, log.stream


def test_the_end_is_recorded():
    made, store, _ = attempt(troubles=[])
    with pytest.raises(FencedError):
        made.execute()
    assert read_ledger(store)[0].events[-1]["exit_code"] == 76


@pytest.mark.parametrize("trouble", [StorageError("the disk is full"), DeniedError("the key was withdrawn")])
def test_a_ledger_that_fails_hides_no_exit_code(trouble):
    made, _, stderr = attempt(troubles=[trouble])
    with pytest.raises(FencedError):
        made.execute()
    assert f"the attempt's end was not recorded: {trouble}" in stderr.getvalue()


def test_trainers_that_wait_end_before_the_last_words():
    made, store, _ = attempt(troubles=[])
    deeds = []
    made.run.standby.end = lambda: deeds.append("trainers")
    store.before.append(lambda call: deeds.append(call.method))
    with pytest.raises(FencedError):
        made.execute()
    assert deeds.index("trainers") < len(deeds) - 1
    assert deeds[-1] == "write"

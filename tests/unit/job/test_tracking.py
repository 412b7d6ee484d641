"""Whose run it is, as a tracker's thread asks."""

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from fakes.runs import commit_log, quiet_log, snapshot
from sdjob.core.retry import Backoff
from sdjob.job.tracking import ownership
from sdjob.store.patient import PatientStore


def test_ours_until_another_attempt_claims_it(tmp_path):
    store, clock = MemoryStore(), FakeClock()
    commits = commit_log(store, clock=clock)
    claim = commits.claim(attempt="one", host="here")
    still_ours = ownership(claim, store=PatientStore(store, backoff=Backoff(clock=clock)), clock=clock, log=quiet_log())
    assert still_ours()
    commits.commit(snapshot(tmp_path, step=10), step=10, facts={"loss": 0.5, "grad_norm": 1.0})
    assert still_ours()
    commit_log(store.client(), clock=clock).claim(attempt="two", host="there")
    assert not still_ours()

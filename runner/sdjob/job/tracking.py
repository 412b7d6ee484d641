"""From an attempt to its trackers: which run this is, where it stands, and whether it is still ours."""

import os
from collections.abc import Callable
from pathlib import Path

from sdjob.ckpt.engine import Claim, new_nonce
from sdjob.ckpt.journal import Journal
from sdjob.core.clock import Clock
from sdjob.core.log import Log
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.job import JobSpec
from sdjob.store.patient import PatientStore
from sdjob.track.trackers import Attempted, Trackers, open_trackers


def open_for_attempt(
    job: JobSpec,
    *,
    run_id: str,
    claim: Claim,
    start_step: int,
    total_steps: int,
    store: PatientStore,
    scratch: Path,
    ledger: LedgerWriter,
    clock: Clock,
    log: Log,
) -> Trackers:
    """job: as resolved."""
    at = Attempted(
        run_id=run_id,
        began_s=claim.history.claims[0].time_s,
        start_step=start_step,
        total_steps=total_steps,
        is_owner=ownership(claim, store=store, clock=clock, log=log),
    )
    return open_trackers(
        job, at=at, store=store, scratch=scratch, environment=os.environ, clock=clock, log=log, note=ledger.event
    )


def ownership(claim: Claim, *, store: PatientStore, clock: Clock, log: Log) -> Callable[[], bool]:
    """A look at the log of its own, for one other thread: the commits' belongs to the saves."""
    journal = Journal(store, clock=clock, log=log, new_nonce=new_nonce)
    journal.history = claim.history

    def still_ours() -> bool:
        journal.catch_up()
        return journal.history.epoch <= claim.epoch

    return still_ours

"""`sdjob run`, from the look at the log to the claim; the rest is the attempt's."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.ckpt.manifest import DamagedBlobError
from sdjob.core.clock import Clock, process_age_s
from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.job import machine
from sdjob.job.attempt import Attempt
from sdjob.job.kept import FOLDER as KEPT
from sdjob.job.kept import Kept
from sdjob.job.limits import check_progress, hours_left
from sdjob.job.nodes.node import Node, node_here
from sdjob.job.nodes.peers import nobody
from sdjob.job.nodes.together import Gather, follow, lead
from sdjob.job.prepare import Run, Staged, resolution_of, stage, start_early
from sdjob.job.results import check_publish_access, publish_places
from sdjob.job.resume import Facts, check_identity, check_length
from sdjob.job.scratch import attempt_folder, full_disk_errors, run_folder
from sdjob.job.stop import StopRequest
from sdjob.job.stopwatch import Stopwatch
from sdjob.job.vitals.signs import Vitals
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.spec.support import unsupported
from sdjob.store.open import open_store
from sdjob.store.patient import PatientStore
from sdjob.track.access import check_access

# How long a reader of a retired checkpoint may take to finish (export, sample); a folder is read in no time.
PRUNE_GRACE_S = {"file": 1.0, "remote": 30.0}
# How long a line of the ledger waits at most. In a bucket every flush is a request, and an object that a later attempt reads.
FLUSH_AGE_S = {"file": 5.0, "remote": 30.0}


def run_job(job: JobSpec, *, stop: StopRequest, clock: Clock, log: Log, vitals: Vitals) -> None:
    """Returns when everything, publish included, is done; raises the error whose exit code says why not."""
    watch = Stopwatch(clock, age_s=process_age_s())
    watch.lap("imports")
    refuse_unsupported(job)
    accelerator = parse_accelerator(job.run.accelerator)
    node = node_here(job, accelerator=accelerator, environment=os.environ)
    machine.require(accelerator)
    if job.train.attention == "xformers":
        machine.require_xformers(accelerator)
    if job.train.compile:
        machine.require_compiler(accelerator, scratch=machine.scratch_root(job))
    machine.require_optimizer(job.train.optimizer.name, accelerator=accelerator)
    place = parse_place(job.checkpoint.to, base=Path.cwd())
    kind: Literal["file", "remote"] = "file" if place.scheme == "file" else "remote"
    store = open_store(place)
    commits = CommitLog(
        store,
        clock=clock,
        log=log,
        unsafe_single_writer=job.checkpoint.unsafe_single_writer,
        keep=job.checkpoint.keep,
        keep_every=job.checkpoint.keep_every,
        prune_grace_s=PRUNE_GRACE_S[kind],
    )
    run = Run(job, PatientStore(store, backoff=Backoff(clock=clock)), commits, accelerator, stop, clock, log, node)
    whole = Whole(run, kind, watch, vitals)
    with run.standby:
        if node.is_alone:
            whole.attempt(lambda: nobody(stop, clock))
        elif node.is_first:
            lead(run, node, attempt=whole.attempt)
        else:
            along(run, node)


@dataclass(frozen=True)
class Whole:
    """All of a run that one process owns: the only one, or node 0 of a gang."""

    run: Run
    kind: Literal["file", "remote"]
    watch: Stopwatch
    vitals: Vitals

    def attempt(self, gather: Gather) -> None:
        """From the look at the log to the last publish."""
        run = self.run
        look = look_back(run, watch=self.watch)
        if look.done:
            say_done(run)
            return
        check_access(run.job.track, environment=os.environ)
        check_publish_access(run.job)
        ledgers = read_ledger(run.store)
        check_progress(ledgers)
        left_s = hours_left(run.job, ledgers=ledgers) * 3600
        scratch = scratch_of(run)
        run.commits.probe()
        self.watch.lap("look")
        peers = gather()
        if not peers.node.is_alone:
            self.watch.lap("peers")
        claim = run.commits.claim(attempt=f"{machine.host_name()}-{os.getpid()}", host=machine.host_name())
        self.watch.lap("claim")
        self.vitals.claimed(claim.epoch, newest=next(iter(claim.history.live), None))
        with full_disk_errors(scratch), attempt_folder(scratch, epoch=claim.epoch, nonce=claim.nonce) as folder:
            ledger = LedgerWriter(
                run.store,
                attempt=claim.epoch,
                clock=run.clock,
                secrets=run.log.secrets,
                flush_age_s=FLUSH_AGE_S[self.kind],
                on_record=self.vitals.note,
            )
            kept = Kept(scratch / KEPT) if self.kind == "remote" else None
            Attempt(run, claim, folder, ledger, left_s, look.staged, self.watch, kept, peers).execute()


def along(run: Run, node: Node) -> None:
    look = look_back(run, watch=None)
    if look.done:
        say_done(run)
    else:
        follow(run, node, staged=look.staged, scratch=scratch_of(run))


def scratch_of(run: Run) -> Path:
    return run_folder(machine.scratch_root(run.job), key=hashlib.sha256(run.commits.uri.encode()).hexdigest()[:16])


def say_done(run: Run) -> None:
    run.log.event("done", f"{run.job.name} is done: nothing is left to do")


def refuse_unsupported(job: JobSpec) -> None:
    refusals = unsupported(job)
    if refusals:
        raise UsageError("\n  ".join(["this job asks for what this version cannot do yet:", *refusals]), where=job.name)


@dataclass(frozen=True)
class Look:
    """What there is to do, as seen before anything is written."""

    done: bool
    staged: Staged | None
    """None where there is no commit yet: its own attempt stages, and writes the index."""


def look_back(run: Run, *, watch: Stopwatch | None) -> Look:
    """Refuses a job that is not the run's own. It comes before the claim, so that a slip in a job file fences nobody.

    watch: what is staged is a lap of its own.
    """
    history = run.commits.replay()
    stored = newest_facts(run.commits, history)
    if stored is None:
        return Look(done=False, staged=None)
    if is_to_train(run.job, history):
        start_early(run, stored=stored)
    staged = watch.apart("stage", lambda: stage(run, may_write=False)) if watch else stage(run, may_write=False)
    resolution = resolution_of(run, staged, stored=stored)
    check_identity(resolution, stored=stored)
    check_length(resolution, step=history.live[0].step)
    published = set(history.done.published) if history.done else set[str]()
    at_end = history.done is not None and history.done.step == resolution.total_steps
    return Look(done=at_end and published >= set(publish_places(run.job)), staged=staged)


def is_to_train(job: JobSpec, history: History) -> bool:
    """As far as the log alone tells: where the job counts epochs, the number of pictures is not known yet."""
    return history.done is None and (job.train.steps is None or history.live[0].step < job.train.steps)


def newest_facts(commits: CommitLog, history: History) -> Facts | None:
    """None without a commit, and where the newest is damaged: the restore will set it aside and take an older one."""
    if not history.live:
        return None
    try:
        return commits.manifest_of(history.live[0]).facts
    except DamagedBlobError:
        return None

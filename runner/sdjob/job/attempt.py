"""One attempt at a run, from the claim to the last publish."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sdjob.ckpt.engine import Claim, Restored
from sdjob.core.errors import FencedError, SdjobError, StorageError
from sdjob.job import machine
from sdjob.job.before import before_here
from sdjob.job.compiled import FOLDERS, CompiledPrograms, arithmetic_of, compiled_folder, kind_of
from sdjob.job.early import EarlyPublish
from sdjob.job.inventory import tell_inventory
from sdjob.job.kept import Kept
from sdjob.job.limits import time_spent
from sdjob.job.nodes.peers import Peers
from sdjob.job.nodes.start import start_of
from sdjob.job.prepare import DEVICES, Run, Staged, pictures_of, resolution_of, shards_of, stage, start_early, train_task
from sdjob.job.results import Result, lacks_samples, publish_all
from sdjob.job.resume import Resolution, check_identity, check_length, num_processes
from sdjob.job.scratch import full_disk_errors
from sdjob.job.stop import RERUN
from sdjob.job.stopwatch import Stopwatch, timed
from sdjob.job.tracking import open_for_attempt
from sdjob.job.training import Training
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.checkpoint import early_steps
from sdjob.spec.job import JOB_KEY, JobSpec
from sdjob.spec.load import resolved_yaml
from sdjob.track.trackers import Trackers, no_trackers

Phase = TypeVar("Phase")


def result_of(restored: Restored) -> Result:
    return Result(restored.folder, restored.step, restored.digest, restored.manifest.facts)


@dataclass
class Attempt:
    """From the claim to `done`; every way out leaves an `end` event in the ledger."""

    run: Run
    claim: Claim
    folder: Path
    ledger: LedgerWriter
    seconds_left: float
    staged: Staged | None
    """What was staged before the claim."""

    watch: Stopwatch
    """Running since the start of the process; its laps so far are told in the ledger."""

    kept: Kept | None
    """None where the run's place is as near as scratch."""

    peers: Peers
    started_s: float = 0.0
    trackers: Trackers = field(default_factory=no_trackers)

    def execute(self) -> None:
        self.started_s = self.run.clock.monotonic_s()
        self.ledger.event("start", host=machine.host_name(), **before_here(os.environ))
        for lap in self.watch.laps:
            over_s = self.run.clock.unix_s() - (self.started_s - lap.over_s)
            self.ledger.event("phase", time_s=round(over_s, 3), name=lap.name, seconds=lap.seconds)
        self.ledger.flush()
        try:
            # What fails ends the waiting trainers first: the last words may have a long way.
            with full_disk_errors(self.folder), self.run.standby:
                self._work()
        except SdjobError as error:
            self._end(error.exit_code, str(error))
            raise
        except Exception as error:
            self._end(SdjobError.exit_code, f"{type(error).__name__}: {error}")
            raise
        self._end(0, "done")

    def _end(self, exit_code: int, why: str) -> None:
        if exit_code == FencedError.exit_code:
            self.trackers.abandon()
        else:
            self.trackers.stop(seconds_left=self.run.stop.seconds_left)
        try:
            self.ledger.event("end", exit_code=exit_code, why=why)
            self.ledger.flush()
        except SdjobError as error:
            # How the attempt ended counts for more than its last line in the ledger.
            self.run.log.warning("ledger", f"the attempt's end was not recorded: {error}")

    def _work(self) -> None:
        run = self.run
        if self.staged is None:
            start_early(run, stored=None)
        staged = self.staged or self._timed("stage", lambda: stage(run, may_write=True))
        restored = self._timed("restore", self._restore)
        stored = restored.manifest.facts if restored else None
        resolution = resolution_of(run, staged, stored=stored)
        if stored is not None:
            check_identity(resolution, stored=stored)
        run.store.write(JOB_KEY, resolved_yaml(resolution.job).encode())
        start_step = restored.step if restored else 0
        check_length(resolution, step=start_step)
        self.trackers = self._open_trackers(resolution, start_step=start_step)
        result = result_of(restored) if restored and start_step == resolution.total_steps else None
        if result is None or lacks_samples(run.job, step=result.step, store=run.store):
            result = self._train(staged, resolution, restored=restored) or result
            assert result is not None
        if lacks_samples(run.job, step=result.step, store=run.store):
            run.stop.check_after(result.step)  # the last step was stopped before its pictures: the next attempt draws them
        self._finish(result, staged, resolution)

    def _restore(self) -> Restored | None:
        copies = self.kept.root if self.kept else None
        restored = self.run.commits.restore(self.folder / "restored", copies=copies)
        if restored is not None:
            near, size = restored.near_bytes, restored.manifest.size_bytes
            self.ledger.event("restored", step=restored.step, size_bytes=size, near_bytes=near)
            where = f", {near / 2**20:.1f} MiB of it from scratch" if near else ""
            words = f"restored step {restored.step}: {size / 2**20:.1f} MiB verified{where}"
            self.run.log.event("restored", words, step=restored.step, size_bytes=size, near_bytes=near)
            if self.kept is not None:
                self.kept.keep(restored.folder, digest=restored.digest)
        return restored

    def _open_trackers(self, resolution: Resolution, *, start_step: int) -> Trackers:
        run = self.run
        return open_for_attempt(
            resolution.job,
            run_id=self._run_id(resolution),
            claim=self.claim,
            start_step=start_step,
            total_steps=resolution.total_steps,
            store=run.store,
            scratch=self.folder,
            ledger=self.ledger,
            clock=run.clock,
            log=run.log,
        )

    def _timed(self, name: str, phase: Callable[[], Phase]) -> Phase:
        return timed(name, phase, watch=self.watch, ledger=self.ledger)

    def _train(self, staged: Staged, resolution: Resolution, *, restored: Restored | None) -> Result | None:
        """The last step's state; None where it was committed before and only its pictures were still to be drawn."""
        run, start_step = self.run, restored.step if restored else 0
        checkpoint = restored.folder if restored else None
        run.log.event(
            "train", self._first_words(resolution, start_step), start_step=start_step, total_steps=resolution.total_steps
        )
        self.ledger.event("train", start_step=start_step, total_steps=resolution.total_steps)
        tell_inventory(staged.index, data=resolution.job.data, ledger=self.ledger, log=run.log)
        self.peers.tell("start", **start_of(self.claim, resolution, restored=restored).fields())
        processes = num_processes(resolution.job, accelerator=run.accelerator)
        shards = None
        if start_step < resolution.total_steps:
            node = self.peers.node
            shards = shards_of(run, staged, resolution, folder=self.folder, checkpoint=checkpoint, node=node)
        if shards is not None:
            shards.on_encoded = lambda counts: self.ledger.event("encoded", **counts)
            shards.on_kept = lambda count: self.ledger.event("encodings-kept", shards=count)
        encode = self._timed("cache", lambda: shards.bring(num_processes=processes)) if shards else None
        training = Training(
            task=train_task(
                run,
                staged,
                resolution,
                start_step=start_step,
                restore_from=checkpoint,
                pictures=self._timed("pictures", lambda: pictures_of(run, staged, encode=encode)),
                folder=self.folder,
                compiled=compiled_folder(resolution.job, attempt=self.folder),
                encode=encode,
            ),
            resolution=resolution,
            stored=restored.manifest.facts if restored else None,
            num_processes=processes,
            num_devices=run.accelerator.devices_per_node,
            store=run.store,
            commits=run.commits,
            ledger=self.ledger,
            trackers=self.trackers,
            attempt=self.claim.epoch,
            stop=run.stop,
            clock=run.clock,
            log=run.log,
            check_time=self._check_time,
            compiled=self._compiled(resolution),
            watch=self.watch,
            kept=self.kept,
            early=self._early(staged, resolution),
            shards=shards,
            peers=self.peers,
            standby=run.standby,
            committed=next(((c.step, c.time_s) for c in self.claim.history.live if c.step == start_step), None),
        )
        training.run()
        return None if start_step == resolution.total_steps else self._outcome(training, resolution)

    def _early(self, staged: Staged, resolution: Resolution) -> EarlyPublish | None:
        run = self.run
        if not early_steps(resolution.job.publish):
            return None
        publish = self._publisher(staged, resolution)
        return EarlyPublish(resolution.job, self.folder, publish, run.stop, self.ledger, run.log)

    def _compiled(self, resolution: Resolution) -> CompiledPrograms:
        run, backend = self.run, resolution.job.train.backend
        kind = kind_of(
            DEVICES[run.accelerator.kind], accelerator=run.accelerator.name, backend=backend, arithmetic=arithmetic_of(resolution)
        )
        shared = machine.scratch_root(run.job) / FOLDERS[backend] / kind
        own = self.folder / FOLDERS[backend]
        return CompiledPrograms(run.store, shared, own, kind, check_stop=run.stop.check, log=run.log, backend=backend)

    def _first_words(self, resolution: Resolution, start_step: int) -> str:
        train = resolution.job.train
        if start_step == resolution.total_steps:
            return f"all {start_step} steps are done; drawing the validation pictures"
        where = f"from step {start_step}" if start_step else "from the start"
        batch = f"{train.global_batch} pictures a step, {train.precision}"
        return f"training {train.method} {where} to step {resolution.total_steps}, {batch}"

    def _check_time(self) -> None:
        if self.run.clock.monotonic_s() - self.started_s > self.seconds_left:
            self.run.stop.request(cause=time_spent(self.run.job, attempts=self.claim.epoch))

    def _outcome(self, training: Training, resolution: Resolution) -> Result:
        """The last step's state where it was committed; else why the training ended before it."""
        saves = training.saves
        if saves.final is not None:
            return Result(saves.final.folder, resolution.total_steps, saves.committed_digest, saves.final.facts)
        self.run.stop.check_after(saves.committed_step)
        raise StorageError("the last step could not be saved.", next_step=RERUN)

    def _run_id(self, resolution: Resolution) -> str:
        """The same for all attempts at this run, and for no other run, though that had the same job."""
        first = next(iter(self.claim.history.claims), None)
        nonce = first.nonce if first else self.claim.nonce
        return hashlib.sha256(f"{resolution.identity_hash} {nonce}".encode()).hexdigest()

    def _finish(self, result: Result, staged: Staged, resolution: Resolution) -> None:
        run = self.run
        run.standby.end()  # where nothing had to be trained
        run.commits.still_owner()

        publish = self._publisher(staged, resolution)
        published = self._timed("publish", lambda: publish(result, resolution.job, self.folder))
        if not run.stop.requested:  # it waits for readers, and the notice is short
            run.commits.prune()
        self.trackers.finish(step=result.step, digest=result.digest, seconds_left=run.stop.seconds_left)
        run.commits.finish(step=result.step, digest=result.digest, published=published)
        if self.kept is not None:
            self.kept.clear()
        run.log.event("done", f"{run.job.name} is done: step {result.step}, digest {result.digest[:12]}", digest=result.digest)

    def _publisher(self, staged: Staged, resolution: Resolution) -> Callable[[Result, JobSpec, Path], list[str]]:
        """Takes a result to the places of a job, by way of a folder."""
        run = self.run

        def publish(result: Result, job: JobSpec, scratch: Path) -> list[str]:
            return publish_all(
                result,
                run_id=self._run_id(resolution),
                job=job,
                model=staged.model.folder,
                index=staged.index,
                store=run.store,
                scratch=scratch,
                check_stop=run.stop.check,
                log=run.log,
            )

        return publish

"""Who takes part: attempts, each the real commit log and the real saves around a trainer's double; readers; the damage.

The trainer's double computes a state from the state before, so that whatever was restored shows in the last digest.
"""

import hashlib
import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdjob.ckpt.engine import CommitLog, Restored
from sdjob.ckpt.manifest import DamagedBlobError
from sdjob.ckpt.verify import verify
from sdjob.core.errors import MissingError, StorageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.job.kept import Kept
from sdjob.job.saves import Save, Saves
from simulator.bucket import Bucket, Client
from simulator.checker import Checker
from simulator.plan import Plan
from simulator.scheduler import ActorClock, Call, Crash, Fate, Scheduler
from simulator.small_files import files_in, put
from simulator.truth import digest_of

STEPS_A_SAVE = 10
START = "0" * 64
Files = dict[str, bytes]


class SilentLog(Log):
    def _write(self, line: str) -> None:
        """Nobody reads it."""


SILENT = SilentLog(secrets=())


@dataclass
class SilentLedger:
    """The ledger is no part of the protocol; what it stores has keys of its own."""

    def event(self, kind: str, **fields: Any) -> None: ...

    def flush(self) -> None: ...


@dataclass
class NoStop:
    requested: bool = False

    def seconds_left(self) -> float:
        return float("inf")


@dataclass(frozen=True)
class World:
    plan: Plan
    scheduler: Scheduler
    bucket: Bucket
    checker: Checker
    folder: Path
    on_call: Callable[[Call, Fate | None], None]
    published: list[str] = field(default_factory=list[str])

    @property
    def last_step(self) -> int:
        return self.plan.saves * STEPS_A_SAVE

    def commit_log(self, name: str) -> tuple[CommitLog, Client]:
        rng = random.Random(f"{self.plan.seed} {name}")
        clock = ActorClock(self.scheduler, skew_s=rng.choice((0.0, 3600.0, -3600.0)))
        client = Client(self.bucket, scheduler=self.scheduler, actor=name, on_call=self.on_call)
        count = itertools.count()
        log = CommitLog(
            client,
            clock=clock,
            log=SILENT,
            keep=self.plan.keep,
            keep_every=self.plan.keep_every and self.plan.keep_every * STEPS_A_SAVE,
            backoff=Backoff(attempts=self.plan.tries, clock=clock, rng=rng),
            new_nonce=lambda: f"{name}-{next(count)}",
        )
        return log, client


def next_state(before: str, *, step: int, salt: str) -> str:
    return hashlib.sha256(f"{before} {step} {salt}".encode()).hexdigest()


def uninterrupted(last_step: int, *, recurring: bool) -> str:
    """The last digest of a run without any trouble."""
    state = START
    for step in range(STEPS_A_SAVE, last_step + 1, STEPS_A_SAVE):
        state = next_state(state, step=step, salt="")
    return digest_of(files_of(state, step=last_step, recurring=recurring))


def files_of(state: str, *, step: int, recurring: bool) -> Files:
    frozen = b"frozen" if not recurring else b"odd" if step // STEPS_A_SAVE % 2 else b"even"
    return {"weights.safetensors": state.encode(), "frozen.safetensors": frozen, "state.json": b"%d" % step}


@dataclass
class Attempt:
    """One process from its first look at the log to `done`, in the order of job/run.py and job/attempt.py."""

    world: World
    name: str
    kept: Kept | None = None
    state: str = START
    step: int = 0

    def run(self) -> Exception | None:
        """What it ended with."""
        log, client = self.world.commit_log(self.name)
        (self.world.folder / self.name).mkdir()
        error: Exception | None = None
        try:
            self._run(log)
        except Exception as caught:
            error = caught
        self.world.checker.ended(error, actor=self.name, troubles=client.troubles)
        return error

    def _run(self, log: CommitLog) -> None:
        world, history = self.world, log.replay()
        if history.done is not None and history.done.step == world.last_step:
            return
        if history.live:
            with suppress(DamagedBlobError):
                log.manifest_of(history.live[0])
        if world.plan.probe:
            log.probe()
        world.checker.claimed(log.claim(attempt=self.name, host="h"), actor=self.name)
        restored = log.restore(world.folder / self.name / "restored", copies=self.kept.root if self.kept else None)
        world.checker.restored(restored, actor=self.name)
        digest = self._gone_on_from(restored)
        if self.step < world.last_step:
            digest = self._train(log)
        log.still_owner()
        world.published.append(digest)
        log.prune()
        log.finish(step=world.last_step, digest=digest, published=["memory://there"])

    def _gone_on_from(self, restored: Restored | None) -> str:
        if restored is None:
            return ""
        files = files_in(restored.folder)
        self.state, self.step = files["weights.safetensors"].decode(), int(files["state.json"])
        return restored.digest

    def _train(self, log: CommitLog) -> str:
        """The saves' thread is the only one here: the trainer's double hands over the next save when it is told of the last."""
        saves = Saves(
            commits=_Told(log, self),  # type: ignore[arg-type]
            ledger=SilentLedger(),  # type: ignore[arg-type]
            stop=NoStop(),  # type: ignore[arg-type]
            clock=ActorClock(self.world.scheduler),
            log=SILENT,
            on_over=lambda _: saves.put(self._next_save()) if self.step < self.world.last_step else saves.close(),
            on_failure=lambda: None,
            kept=self.kept,
        )
        saves.put(self._next_save())
        saves._work()
        if saves.failure is not None:
            raise saves.failure
        if saves.final is None:
            raise StorageError("the last step could not be saved.")
        return saves.committed_digest

    def _next_save(self) -> Save:
        world = self.world
        self.step += STEPS_A_SAVE
        self.state = next_state(self.state, step=self.step, salt="" if world.plan.exact else self.name)
        files = files_of(self.state, step=self.step, recurring=world.plan.recurring)
        folder = world.folder / self.name / f"step-{self.step}"
        folder.mkdir()
        for name, data in files.items():
            put(f"{folder}/{name}", data)
        world.checker.snapshots[digest_of(files)] = files
        final = self.step == world.last_step
        return Save(self.step, folder, {"loss": 0.5, "grad_norm": 1.0}, stall_s=0.0, final=final)


@dataclass
class _Told:
    """The commit log, with the checker told of each commit that it says is there."""

    log: CommitLog
    attempt: Attempt

    def commit(self, folder: Path, *, step: int, facts: dict[str, Any]) -> Any:
        commit = self.log.commit(folder, step=step, facts=facts)
        self.attempt.world.checker.committed(commit, actor=self.attempt.name)
        return commit

    def prune(self) -> list[int]:
        return self.log.prune()


def pod(world: World, number: int) -> None:
    """Starts an attempt anew where one died or ended with an error, as Kubernetes does."""
    kept = None if world.plan.kept == "no" else Kept(world.folder / f"kept{number}")
    for attempt in range(world.plan.restarts + 1):
        name, error = f"pod{number}.{attempt}", None
        if kept is not None and world.plan.kept == "damaged":
            _spoil(kept)
        try:
            error = Attempt(world, name, kept).run()
            if error is None:
                return
        except Crash:
            if world.scheduler.stopped:
                return


def _spoil(kept: Kept) -> None:
    """One file of the copies is cut, which nobody was told."""
    for path in sorted(kept.root.glob("*/*"))[:1]:
        path.write_bytes(path.read_bytes()[:-1])


def reader(world: World, number: int) -> None:
    """export, sample, and `checkpoints verify`, beside the writers."""
    rng, name = random.Random(f"{world.plan.seed} reader {number}"), f"reader{number}"
    for look in range(3):
        world.scheduler.pause()
        log, client = world.commit_log(f"{name}.{look}")
        step = rng.choice((None, None, STEPS_A_SAVE * rng.randint(1, world.plan.saves)))
        before, restored, error = list(world.checker.truth.live), None, None
        try:
            if rng.random() < 0.3:
                _verify(log, world, name=name)
                continue
            restored = log.fetch(world.folder / name / str(look), step=step)
        except Exception as caught:
            error = caught
        world.checker.ended(error, actor=name, troubles=client.troubles)
        if error is None or isinstance(error, MissingError):
            world.checker.read(restored, actor=name, before=before, step=step)


def _verify(log: CommitLog, world: World, *, name: str) -> None:
    report = verify(log)
    if not report.is_whole and not world.checker.damaged:
        what = [damage for checked in report.commits for damage in checked.damage]
        world.checker.fail("honest", f"{name} reports damage where none was done: {what or report.damaged_slots}")

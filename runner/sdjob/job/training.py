"""The training phase: starts the gang, turns its messages into commits, ledger records, samples and progress."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdjob import __version__
from sdjob.ckpt.engine import CommitLog
from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import StorageError
from sdjob.core.log import Log
from sdjob.job.compiled import CompiledPrograms
from sdjob.job.early import EarlyPublish
from sdjob.job.encodings import EncodedShards
from sdjob.job.gang import Gang
from sdjob.job.interval import Interval, begun, interval_of
from sdjob.job.kept import Kept
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.nodes.peers import Peers
from sdjob.job.parts import Parts
from sdjob.job.progress import Progress, live_line
from sdjob.job.resume import Facts, Resolution, inexact_because
from sdjob.job.saves import Save, Saves
from sdjob.job.standby import Standby
from sdjob.job.stop import StopRequest
from sdjob.job.stopwatch import Stopwatch, timed
from sdjob.ledger.read import read_ledger
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.task import TrainTask, write_task
from sdjob.store.base import ObjectStore
from sdjob.track.row import Picture
from sdjob.track.trackers import Trackers

KEEP_S = 60.0  # how long the end waits at most for compiled programs to be kept
LOG_EVERY_S = 10.0  # a line of progress where there is no terminal


@dataclass
class Training:
    task: TrainTask
    resolution: Resolution
    stored: Facts | None
    """Facts of the commit that this attempt goes on from."""

    num_processes: int
    num_devices: int
    store: ObjectStore
    commits: CommitLog
    ledger: LedgerWriter
    trackers: Trackers
    attempt: int
    stop: StopRequest
    clock: Clock
    log: Log
    check_time: Callable[[], None]
    """Asks for a stop when `max_hours` is used up."""

    compiled: CompiledPrograms
    watch: Stopwatch
    kept: Kept | None
    early: EarlyPublish | None
    """Where something is published during training."""

    peers: Peers
    standby: Standby
    committed: tuple[int, float] | None
    """The step that this attempt goes on from, and the Unix time of its commit."""

    shards: EncodedShards | None = None
    """Where the encoders run before the training."""

    interval: Interval | None = field(init=False, default=None)
    """Where `checkpoint.every` is auto."""

    parts: Parts = field(init=False)
    saves: Saves = field(init=False)
    gang: Gang = field(init=False)
    progress: Progress = field(init=False)
    _fingerprint: dict[str, Any] = field(default_factory=dict[str, Any])
    _inexact: list[str] = field(default_factory=list[str])
    _logged_at_s: float = float("-inf")
    _stopping: bool = False
    _stepped: bool = False
    _saving: bool = False
    _encoding_from_s: float | None = None

    def __post_init__(self) -> None:
        self.gang = Gang(self.stop, self.clock, on_message=self._on_message, watch=self._watch, begin=self.standby.take)
        self.peers.on_loss = self.gang.wake
        if self.shards is not None:
            self.shards.on_ready, self.shards.on_failure = self._tell_encoding, self.gang.wake
        self.parts = Parts(self.num_processes if self.task.job.train.fsdp else 1)
        self.progress = Progress(self.task.total_steps, self.clock, committed=self.committed)
        self.saves = Saves(
            self.commits,
            self.ledger,
            self.stop,
            self.clock,
            self.log,
            on_over=self._on_save_over,
            on_failure=self.gang.wake,
            kept=self.kept,
        )
        if self.early is not None:
            self.saves.on_committed = self.early.committed
        if self.task.job.checkpoint.every == "auto":
            ledgers = [ledger for ledger in read_ledger(self.store) if ledger.attempt < self.attempt]
            self.interval = interval_of(self.task.job, ledgers=ledgers, clock=self.clock, tell=self._on_interval)
            self.saves.on_commit = self.interval.saved

    def run(self) -> str:
        """ "finished" or "stopped", with every save over. Raises what ended the trainer or the saves."""
        if self.task.compiled is not None:
            timed("programs", self.compiled.bring, watch=self.watch, ledger=self.ledger)
        task_file = self.task.scratch / "task.json"
        write_task(self._begun(), task_file)
        alone = GangShape.of(self.task, num_processes=self.num_processes, num_devices=self.num_devices)
        shape = self._shape(alone)
        self.saves.start()
        self._tell_lap("prepare")
        try:
            with self.peers.explaining():
                ending = self.gang.run(trainer_commands(task_file, shape=shape, environment=self.standby.environment))
        finally:
            self.saves.finish()
            self._finish_the_rest()
        self._check_saves()
        return ending

    def _shape(self, alone: GangShape) -> GangShape:
        if self.peers.node.is_alone:
            return self.peers.shaped(alone)
        return timed("peers", lambda: self.peers.shaped(alone), watch=self.watch, ledger=self.ledger)

    def _finish_the_rest(self) -> None:
        """What went on beside the training, and has had its time."""
        self._tell_encoding()  # where it was cut off
        if self.shards is not None:
            timed("cache", self.shards.finish, watch=self.watch, ledger=self.ledger)
        if self.early is not None:
            timed("publish", self.early.finish, watch=self.watch, ledger=self.ledger)
        if self.task.compiled is not None:
            left_s = min(KEEP_S, max(0.0, self.stop.seconds_left()))
            timed("programs", lambda: self.compiled.finish(timeout_s=left_s), watch=self.watch, ledger=self.ledger)

    def _begun(self) -> TrainTask:
        if self.interval is None:
            return self.task
        return replace(self.task, job=begun(self.task.job, seconds=self.interval.seconds))

    def _on_interval(self, seconds: float, words: str, told: dict[str, Any]) -> None:
        """At the start, then from the saves' thread."""
        self.ledger.event("interval", seconds=seconds, **told)
        self.log.event("interval", words, seconds=seconds, **told)
        if self.gang.children:
            self.gang.tell_main({"event": "interval", "seconds": seconds})

    def _watch(self) -> None:
        self._check_saves()
        self.peers.check()
        self.check_time()
        if self.stop.requested and not self._stopping:
            self._stopping = True
            left_s = round(max(0.0, self.stop.seconds_left()), 1)
            self.ledger.event("stopping", seconds_left=left_s)
            self.log.event(
                "stopping", f"asked to stop: this step is finished and saved, {left_s} s are left", seconds_left=left_s
            )

    def _check_saves(self) -> None:
        if self.saves.failure is not None:
            raise self.saves.failure
        if self.shards is not None:
            self.shards.check()

    def _on_message(self, message: Message) -> None:
        handlers = {
            "imported": self._on_imported,
            "encoding": self._on_encoding,
            "shard": self._on_shard,
            "ready": self._on_ready,
            "metrics": self._on_metrics,
            "snapshot": self._on_written,
            "part": self._on_written,
            "samples": self._on_samples,
            "held-out": self._on_held_out,
            "compiled": self._on_compiled,
            "save-skipped": self._on_missed_save,
            "save-failed": self._on_written,
        }
        handler = handlers.get(message["event"])
        if handler is not None:
            handler({key: value for key, value in message.items() if key != "event"})

    def _on_imported(self, fields: dict[str, Any]) -> None:
        self._tell_lap("trainer-imports", whole_s=fields["seconds"])

    def _on_encoding(self, _fields: dict[str, Any]) -> None:
        assert self.shards is not None, "a trainer encodes what it was asked to"
        self._encoding_from_s = self.clock.monotonic_s()
        self.ledger.event("encode", shards=len(self.shards.plan.shards), missing=self.shards.num_missing)

    def _on_shard(self, fields: dict[str, Any]) -> None:
        assert self.shards is not None, "a trainer encodes what it was asked to"
        self.shards.heard(fields)

    def _tell_encoding(self) -> None:
        if self._encoding_from_s is None:
            return
        seconds, self._encoding_from_s = self.clock.monotonic_s() - self._encoding_from_s, None
        self.watch.leave_out(seconds)
        self.ledger.event("phase", name="cache", seconds=round(seconds, 3))

    def _tell_lap(self, name: str, **more: Any) -> None:
        lap = self.watch.lap(name)
        self.ledger.event("phase", name=lap.name, seconds=lap.seconds, **more)

    def _on_ready(self, fields: dict[str, Any]) -> None:
        self._tell_lap("load")
        self._fingerprint = fields["fingerprint"]
        if self.stored is not None:
            self._inexact = inexact_because(self.stored, fingerprint=self._fingerprint, resolution=self.resolution)
            self._inexact += self.shards.changed() if self.shards is not None else []
        if self._inexact:
            why = "; ".join(self._inexact)
            self.log.warning("inexact", f"resume is correct to rounding, not bit-exact: {why}")
        self.ledger.event("ready", **fields, inexact=self._inexact)

    def _on_compiled(self, fields: dict[str, Any]) -> None:
        if fields["seconds"] is not None:  # ranks compile at the same time: the first one's counts
            counts = {kind: len(fields[kind]) for kind in ("new", "read")}
            self.ledger.event("phase", name="compile", seconds=fields["seconds"], **counts)
        self.compiled.keep([*fields["new"], *fields["read"]])

    def _on_metrics(self, fields: dict[str, Any]) -> None:
        if not self._stepped:
            self._stepped = True
            self._tell_lap("first-step")
            self.ledger.event("phase", name="start-to-first-step", seconds=self.watch.total_s())
        if self.interval is not None:
            self.interval.stepped(saving=self._saving)
        stand = self.progress.stepped(step=fields["step"], loss=fields["loss"], images=fields["images"])
        step_s = self.progress.step_s()
        metrics: dict[str, Any] = {**fields, "step_s": step_s, "images_per_s": stand.images_per_s}
        self.ledger.metrics(**metrics)
        self.trackers.metrics(fields["step"], metrics)
        self.log.progress(live_line(stand, columns=self.log.columns))
        now_s = self.clock.monotonic_s()
        if now_s - self._logged_at_s >= LOG_EVERY_S and not self.log.has_bar:
            self._logged_at_s = now_s
            self.log.event(
                "step", live_line(stand, columns=None), **{name: value for name, value in fields.items() if name != "time_s"}
            )

    def _on_written(self, fields: dict[str, Any]) -> None:
        told = self.parts.told(fields)
        if told is not None:
            (self._on_missed_save if "why" in told else self._on_snapshot)(told)

    def _on_snapshot(self, fields: dict[str, Any]) -> None:
        self._saving = True
        final = fields["step"] == self.task.total_steps
        folder = Path(fields["folder"])
        if self.shards is not None:
            os.link(self.shards.table, folder / self.shards.table.name)  # it says which bits were trained on
        save = Save(fields["step"], folder, self._facts(fields), stall_s=fields["stall_s"], final=final)
        self.saves.put(save)

    def _on_save_over(self, step: int) -> None:
        """From the saves' thread."""
        self._saving = False
        self.gang.tell_main({"event": "save-over", "step": step})
        if self.saves.committed_step == step:
            self.progress.committed = (step, self.clock.unix_s())
            self.trackers.committed()

    def _facts(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "loss": fields["loss"],
            "grad_norm": fields["grad_norm"],
            "total_steps": self.task.total_steps,
            "identity": self.resolution.identity,
            "identity_hash": self.resolution.identity_hash,
            "precision": self.task.job.train.precision,
            "arithmetic": self.resolution.arithmetic,
            "fingerprint": self._fingerprint,
            "inexact": self._inexact,
            "sdjob": __version__,
        }

    def _on_samples(self, fields: dict[str, Any]) -> None:
        """Who goes on from a step's commit does not draw its pictures again: they are there before it."""
        if self.interval is not None:
            self.interval.interrupted()
        self.saves.before_next(lambda: self._keep_samples(Path(fields["folder"]), step=fields["step"], seconds=fields["seconds"]))

    def _keep_samples(self, folder: Path, *, step: int, seconds: float) -> None:
        """From the saves' thread."""
        pictures = sorted(folder.glob("*.png"))
        try:
            for picture in pictures:
                self.store.write_file(samples_key(self.attempt, step=step, name=picture.name), picture)
        except StorageError as error:  # pictures to look at are not worth the run
            self.log.warning("samples-failed", f"validation pictures of step {step} were not written: {error}", step=step)
            self.ledger.event("samples-failed", step=step, seconds=seconds, why=str(error))
            self.trackers.samples(step, [])
            return
        finally:
            shutil.rmtree(folder)
        prompts = self.task.job.validation.prompts if self.task.job.validation else ()
        self.ledger.event("samples", step=step, seconds=seconds, prompts=prompts)
        self.trackers.samples(step, [self._drawn(step, picture.stem, prompts) for picture in pictures])
        self.log.event("samples", f"validation pictures of step {step} written", step=step)

    def _on_held_out(self, fields: dict[str, Any]) -> None:
        if self.interval is not None:
            self.interval.interrupted()
        self.ledger.event("held-out", **fields)
        self.log.event("held-out", f"loss on held-out pictures at step {fields['step']}: {fields['loss']:.4f}", **fields)

    def _drawn(self, step: int, name: str, prompts: Sequence[str]) -> Picture:
        key = samples_key(self.attempt, step=step, name=f"{name}.png")
        return Picture(key, name, prompts[int(name.partition("-")[0])])

    def _on_missed_save(self, fields: dict[str, Any]) -> None:
        self.log.warning("save-missed", f"step {fields['step']} was not saved: {fields['why']}", step=fields["step"])
        self.ledger.event("save-missed", step=fields["step"], why=fields["why"], stall_s=round(fields.get("stall_s", 0.0), 4))
        if folder := fields.get("folder"):
            shutil.rmtree(folder, ignore_errors=True)
            self.gang.tell_main({"event": "save-over", "step": fields["step"]})


def samples_key(attempt: int, *, step: int, name: str) -> str:
    return f"attempts/{attempt:04d}/samples/{step:08d}/{name}"

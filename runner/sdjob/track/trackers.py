"""What the job calls: one object for all trackers that a job names, or for none."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.core.clock import Clock, SystemClock
from sdjob.core.log import Log, redacted
from sdjob.core.retry import Backoff
from sdjob.spec.checkpoint import ValidationSpec, drawn_every_steps
from sdjob.spec.job import JobSpec
from sdjob.spec.load import resolved, resolved_yaml
from sdjob.store.base import ObjectStore
from sdjob.store.patient import PatientStore
from sdjob.track.access import wandb_mode
from sdjob.track.feeder import Committed, Feeder, Item, Samples
from sdjob.track.past import past_rows
from sdjob.track.row import Final, Picture, Row, row_of
from sdjob.track.tensorboard_tracker import FOLDER, TensorBoardTracker
from sdjob.track.tracker import Tracker
from sdjob.track.wandb_tracker import WandbRun, WandbTracker, start_child, wandb_run_id

FINISH_S = 120.0  # for all trackers together, before a finished run is called done
STOP_S = 10.0  # the same for an attempt that another will go on from
LEFT_S = 1.0  # of the notice, for what comes after the trackers


@dataclass(frozen=True)
class Attempted:
    """Where an attempt stands, as its trackers need to know it."""

    run_id: str
    began_s: float
    """Unix time of the run's first attempt."""

    start_step: int
    total_steps: int
    is_owner: Callable[[], bool]
    """Whether the attempt still holds the run; called from other threads."""


@dataclass(frozen=True)
class Trackers:
    """Every call returns at once, except `finish` and `stop`."""

    feeders: tuple[Feeder, ...]
    clock: Clock
    secrets: tuple[str, ...] = ()

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        if self.feeders:
            self._put(row_of({"time_s": self.clock.unix_s(), **values, "step": step}))

    def samples(self, step: int, pictures: Sequence[Picture]) -> None:
        self._put(Samples(step, clean(pictures, secrets=self.secrets)))

    def committed(self) -> None:
        self._put(Committed())

    def finish(self, *, step: int, digest: str, seconds_left: Callable[[], float]) -> None:
        """The run is complete: waits until its trackers are too, or a limit is reached."""
        self._end(Final(step, digest), limit_s=FINISH_S, seconds_left=seconds_left)

    def stop(self, *, seconds_left: Callable[[], float]) -> None:
        """The attempt is over. After `finish` this does nothing."""
        self._end(None, limit_s=STOP_S, seconds_left=seconds_left)

    def abandon(self) -> None:
        """Another attempt feeds them now."""
        for feeder in self.feeders:
            feeder.abandon()

    def _put(self, item: Item) -> None:
        for feeder in self.feeders:
            feeder.put(item)

    def _end(self, final: Final | None, *, limit_s: float, seconds_left: Callable[[], float]) -> None:
        until_s = self.clock.monotonic_s() + limit_s
        for feeder in self.feeders:
            feeder.finish(final, limit_s=lambda: min(until_s - self.clock.monotonic_s(), seconds_left() - LEFT_S))


def no_trackers() -> Trackers:
    return Trackers((), SystemClock())


def open_trackers(
    job: JobSpec,
    *,
    at: Attempted,
    store: ObjectStore,
    scratch: Path,
    environment: Mapping[str, str],
    clock: Clock,
    log: Log,
    note: Callable[..., None],
    backoff: Backoff | None = None,
) -> Trackers:
    """From the main thread. They first catch up with the ledger, in threads of their own.

    note: writes an event into the ledger.
    """
    patient = PatientStore(store, backoff=backoff or Backoff(attempts=12, cap_s=60.0, clock=clock))
    prompts = tuple(job.validation.prompts) if job.validation else ()

    def past(after: int) -> Any:
        rows = past_rows(patient, after=after, through=at.start_step, prompts=prompts)
        return (with_whole_pictures(row, at=at, validation=job.validation, secrets=log.secrets) for row in rows)

    def on_dropped(name: str, why: str) -> None:
        log.warning("track-dropped", f"{name} is told no more of this attempt; the ledger has it all: {why}", tracker=name)
        note("track-dropped", tracker=name, why=why)

    opened = Opening(job, at, patient, scratch, environment, clock, log)
    feeders = tuple(
        Feeder(tracker, past, lambda step: pictures_due(step, at=at, validation=job.validation), on_dropped)
        for tracker in opened.trackers()
    )
    for feeder in feeders:
        feeder.start()
    return Trackers(feeders, clock, log.secrets)


@dataclass(frozen=True)
class Opening:
    job: JobSpec
    at: Attempted
    store: PatientStore
    scratch: Path
    environment: Mapping[str, str]
    clock: Clock
    log: Log

    def trackers(self) -> list[Tracker]:
        makers: dict[str, Callable[[], Tracker | None]] = {"tensorboard": self._tensorboard, "wandb": self._wandb}
        return [tracker for name in dict.fromkeys(self.job.track) if (tracker := makers[name]())]

    def _tensorboard(self) -> Tracker:
        place = f"{self.job.checkpoint.to}/{FOLDER.rstrip('/')}"
        self.log.event("track", f"to see this run's curves: tensorboard --logdir {place}", tracker="tensorboard", place=place)
        job_text = redacted(resolved_yaml(self.job), secrets=self.log.secrets)
        return TensorBoardTracker(self.store, job_text, self.clock)

    def _wandb(self) -> Tracker | None:
        mode = wandb_mode(self.environment)
        if mode == "disabled":
            self.log.event("track", "wandb is told nothing, since WANDB_MODE is disabled", tracker="wandb")
            return None
        run = self._wandb_run(mode)
        if mode == "offline":
            place = f"{self.job.checkpoint.to}/{run.folder.rstrip('/')}"
            self.log.event("track", f"to send this run at any time: wandb sync {place}", tracker="wandb", place=place)
        folder = self.scratch / "wandb"
        child = start_child(folder, mode=mode, environment=self.environment)
        return WandbTracker(run, child, self.store, folder, self.clock, self.at.is_owner, self._on_url)

    def _wandb_run(self, mode: Any) -> WandbRun:
        return WandbRun(
            run_id=wandb_run_id(self.at.run_id),
            name=self.environment.get("WANDB_NAME") or self.job.name,
            project=self.environment.get("WANDB_PROJECT") or "sdjob",
            config=json.loads(redacted(json.dumps(resolved(self.job)), secrets=self.log.secrets)),
            mode=mode,
            began_s=self.at.began_s,
        )

    def _on_url(self, url: str) -> None:
        self.log.event("track", f"this run at Weights & Biases: {url}", tracker="wandb", url=url)


def pictures_due(step: int, *, at: Attempted, validation: ValidationSpec | None) -> bool:
    every = drawn_every_steps(validation)
    return every is not None and (step % every == 0 or step == at.total_steps)


def with_whole_pictures(row: Row, *, at: Attempted, validation: ValidationSpec | None, secrets: tuple[str, ...]) -> Row:
    """The step that an attempt starts from may have been stopped amid its pictures: it is told when they are drawn again."""
    pictures = clean(row.pictures, secrets=secrets)
    if validation is not None and row.step == at.start_step == at.total_steps:
        pictures = pictures if len(pictures) >= len(validation.prompts) * validation.images else ()
    return Row(row.step, row.time_s, row.values, pictures)


def clean(pictures: Sequence[Picture], *, secrets: tuple[str, ...]) -> tuple[Picture, ...]:
    return tuple(Picture(each.key, each.name, redacted(each.prompt, secrets=secrets)) for each in pictures)

"""Weights of any checkpoint of a run, written to a folder. Only reads the run's place."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from sdjob.ckpt.engine import CommitLog
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, SdjobError, UsageError
from sdjob.core.log import Log
from sdjob.job import machine, stage
from sdjob.job.fetch import Here
from sdjob.job.weights import Weights, build_published
from sdjob.spec.job import JOB_KEY, JobSpec
from sdjob.spec.load import parse_job
from sdjob.store.base import ObjectMissingError, ObjectStore

ExportFormat = Literal["diffusers", "kohya"]


@dataclass(frozen=True)
class Exported:
    step: int
    digest: str
    files: tuple[str, ...]


def export(
    store: ObjectStore,
    *,
    step: int | None,
    to: Path,
    format: ExportFormat,  # noqa: A002 - as in build_published
    weights: Weights | None,
    clock: Clock,
    log: Log,
) -> Exported:
    """Writes the weights of a step (None: the newest commit) into `to`, which appears whole or not at all.

    `weights` None: the moving averages where the run keeps them. MissingError (66) for a place without a run and for a
    step that it does not have; UsageError (64) for a folder that is not empty and for averages that do not exist.
    """
    refuse_occupied(to)
    job = read_job(store)
    if weights == "ema" and job.train.ema is None:
        raise UsageError("this run keeps no moving averages.", where="--weights", next_step="Take --weights raw.")
    model_dir = base_model(job, format=format, here=here_for_reading(clock=clock, log=log))
    with folder_beside(to) as scratch:
        checkpoint, built = scratch / "checkpoint", scratch / "built"
        checkpoint.mkdir()
        restored = CommitLog(store, clock=clock, log=log).fetch(checkpoint, step=step)
        files = build_published(checkpoint, job=job, model_dir=model_dir, out=built, weights=weights or "ema", format=format)
        built.rename(to.resolve())
    return Exported(step=restored.step, digest=restored.digest, files=tuple(files))


@contextmanager
def folder_beside(target: Path) -> Generator[Path]:
    """A scratch folder in the target's own parent: the result is moved and not copied, and a checkpoint may outgrow /tmp."""
    parent = target.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".sdjob-export-", dir=parent)
    except OSError as error:
        raise UsageError(f"nothing can be written there: {error.strerror}.", where=f"--to {target}") from error
    with scratch as path:
        yield Path(path)


def refuse_occupied(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            "this folder is not empty.", where=f"--to {folder}", next_step="Name a new folder: nothing is overwritten."
        )


def read_job(store: ObjectStore) -> JobSpec:
    """The resolved job that the run's attempts left at its place."""
    try:
        return parse_job(yaml.safe_load(store.read(JOB_KEY)))
    except ObjectMissingError as error:
        raise MissingError(
            f"no run is here: it would have a {JOB_KEY}.",
            where=store.uri,
            next_step="Give the place that is the job's checkpoint.to.",
        ) from error


def base_model(job: JobSpec, *, format: ExportFormat, here: Here) -> Path | None:  # noqa: A002
    """The base model's folder. A LoRA can do without it: kohya's file then does not say for which kind of model it is."""
    if job.train.method == "full":
        return stage.base_model(job, method="full", here=here)
    if format == "diffusers":
        return None
    try:
        return stage.model_configs(job, here=here)
    except SdjobError as error:
        here.log.warning("base-model-missing", message=f"kohya's file will not name the base model's version: {error}")
        return None


def here_for_reading(*, clock: Clock, log: Log) -> Here:
    """For commands that read a run: its own `run.scratch` may be a path of another machine."""
    return Here(machine.scratch_root(None), check_stop=lambda: None, clock=clock, log=log)

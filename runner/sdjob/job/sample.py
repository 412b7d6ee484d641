"""Pictures from a run, a published folder or a base model: finds the weights, starts a trainer process to draw."""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, UsageError
from sdjob.core.log import Log
from sdjob.job.export import export, read_job
from sdjob.job.gang import Gang
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.run import JOB_KEY
from sdjob.job.stage import local_folder
from sdjob.job.stop import StopRequest
from sdjob.job.weights import DIFFUSERS_LORA, Weights
from sdjob.spec.places import parse_place
from sdjob.spec.task import SampleTask, write_task
from sdjob.store.open import open_store

PIPELINE = "model_index.json"


@dataclass(frozen=True)
class Source:
    """What the pictures are drawn with."""

    model: Path
    lora: Path | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Choice:
    """What the caller chose about the source, beside its place."""

    model: str | None = None
    """The place of the base model, where the source does not say it."""

    step: int | None = None
    weights: Weights | None = None


def find_source(place: str, *, choice: Choice, scratch: Path, clock: Clock, log: Log) -> Source:
    """A run's place, a published folder, or a model folder. MissingError (66) where it is none of them."""
    folder = parse_place(place, base=Path.cwd()).path
    if (folder / JOB_KEY).is_file():
        return source_of_run(place, choice=choice, scratch=scratch, clock=clock, log=log)
    if choice.step is not None or choice.weights is not None:
        raise UsageError("is not a run's place, so it has no --step and no --weights to choose from.", where=place)
    if (folder / DIFFUSERS_LORA).is_file():
        return Source(model=base_of_lora(choice, where=place), lora=folder)
    if (folder / PIPELINE).is_file():
        return Source(model=folder)
    raise MissingError(
        f"holds no run ({JOB_KEY}), no LoRA ({DIFFUSERS_LORA}) and no model ({PIPELINE}).",
        where=place,
        next_step="Give a job's checkpoint.to or publish.to, or a model's folder.",
    )


def base_of_lora(choice: Choice, *, where: str) -> Path:
    if choice.model is None:
        raise UsageError(
            "holds a LoRA, which is drawn on top of a base model.", where=where, next_step="Name the base with --model PLACE."
        )
    return local_folder(choice.model, field="--model")


def source_of_run(place: str, *, choice: Choice, scratch: Path, clock: Clock, log: Log) -> Source:
    store = open_store(parse_place(place, base=Path.cwd()))
    job = read_job(store)
    weights = scratch / "weights"
    done = export(store, step=choice.step, to=weights, format="diffusers", weights=choice.weights, clock=clock, log=log)
    log.event("weights", f"drawing with step {done.step} of {job.name}", step=done.step, digest=done.digest)
    full = job.train.method == "full"
    return Source(
        model=weights if full else local_folder(choice.model or job.model.source, field="model.source"),
        lora=None if full else weights,
        width=job.data.resolution.width,
        height=job.data.resolution.height,
    )


def sample(place: str, *, task: SampleTask, choice: Choice, stop: StopRequest, clock: Clock, log: Log) -> list[Path]:
    """Draws `task`, whose model is found from the place; returns the pictures' files in the order of prompts."""
    task.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sdjob-sample-") as folder:
        source = find_source(place, choice=choice, scratch=Path(folder), clock=clock, log=log)
        task = replace(
            task,
            model=source.model,
            lora=source.lora,
            width=task.width or source.width,
            height=task.height or source.height,
        )
        task_file = Path(folder) / "task.json"
        write_task(task, task_file)
        draw(task_file, task=task, stop=stop, clock=clock, log=log)
    return sorted(task.out / f"{p:02d}-{i:02d}.png" for p in range(len(task.prompts)) for i in range(task.images))


def draw(task_file: Path, *, task: SampleTask, stop: StopRequest, clock: Clock, log: Log) -> None:
    def on_message(message: Message) -> None:
        if message["event"] == "picture":
            log.progress(f"drawing: {message['done']}/{message['of']}")

    shape = GangShape(num_processes=1, device=task.device, threads=task.threads, deterministic=True, port=0)
    gang = Gang(stop, clock, on_message=on_message, watch=lambda: None)
    gang.run(trainer_commands(task_file, shape=shape, environment=os.environ))

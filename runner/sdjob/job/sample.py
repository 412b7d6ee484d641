"""Pictures from a run, a published folder or a base model: finds the weights, starts a trainer process to draw."""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, UnavailableError, UsageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.diffusion.pictures import picture_name
from sdjob.job.accelerators import tpus
from sdjob.job.export import export, read_job
from sdjob.job.fetch import Here, fetch
from sdjob.job.gang import Gang
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.machine import installed_version, scratch_root
from sdjob.job.stage import base_model, model_folder
from sdjob.job.stop import StopRequest
from sdjob.job.weights import DIFFUSERS_LORA, Weights
from sdjob.spec.job import JOB_KEY, JobSpec
from sdjob.spec.places import Place, parse_place
from sdjob.spec.task import Device, SampleTask, write_task
from sdjob.spec.train import Backend
from sdjob.store.open import open_store
from sdjob.store.patient import PatientStore

PIPELINE = "model_index.json"
NEEDS: dict[Backend, tuple[str, ...]] = {"torch": ("torch", "diffusers", "transformers"), "flax": ("jax", "flax", "tokenizers")}


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


def find_source(text: str, *, choice: Choice, scratch: Path, here: Here) -> Source:
    """A run's place, a published folder, or a model folder. MissingError (66) where it is none of them."""
    place = parse_place(text, base=Path.cwd()).on_hub("models")
    store = PatientStore(open_store(place), backoff=Backoff(clock=here.clock))
    if place.scheme != "hf" and store.stat(JOB_KEY):
        return source_of_run(place, choice=choice, scratch=scratch, here=here)
    if choice.step is not None or choice.weights is not None:
        raise UsageError("is not a run's place, so it has no --step and no --weights to choose from.", where=text)
    if store.stat(DIFFUSERS_LORA):
        return Source(model=base_of_lora(choice, where=text, here=here), lora=lora_folder(place, here=here))
    if store.stat(PIPELINE):
        return Source(model=model_folder(place, variant=None, method="lora", here=here, field=text))
    raise MissingError(
        f"holds no run ({JOB_KEY}), no LoRA ({DIFFUSERS_LORA}) and no model ({PIPELINE}).",
        where=text,
        next_step="Give a job's checkpoint.to or publish.to, or a model's folder.",
    )


def lora_folder(place: Place, *, here: Here) -> Path:
    if place.scheme == "file":
        return place.path
    return fetch(place, choose=lambda _: [DIFFUSERS_LORA], here=here, field=place.uri).folder


def base_of_lora(choice: Choice, *, where: str, here: Here) -> Path:
    if choice.model is None:
        raise UsageError(
            "holds a LoRA, which is drawn on top of a base model.", where=where, next_step="Name the base with --model PLACE."
        )
    return chosen_model(choice.model, here=here)


def chosen_model(text: str, *, here: Here) -> Path:
    place = parse_place(text, base=Path.cwd()).on_hub("models")
    return model_folder(place, variant=None, method="lora", here=here, field="--model")


def source_of_run(place: Place, *, choice: Choice, scratch: Path, here: Here) -> Source:
    store = open_store(place)
    job = read_job(store)
    weights = scratch / "weights"
    done = export(store, step=choice.step, to=weights, format="diffusers", weights=choice.weights, clock=here.clock, log=here.log)
    here.log.event("weights", f"drawing with step {done.step} of {job.name}", step=done.step, digest=done.digest)
    full = job.train.method == "full"
    return Source(
        model=weights if full else model_of_run(job, choice=choice, here=here),
        lora=None if full else weights,
        width=job.data.resolution.width,
        height=job.data.resolution.height,
    )


def model_of_run(job: JobSpec, *, choice: Choice, here: Here) -> Path:
    if choice.model is not None:
        return chosen_model(choice.model, here=here)
    return base_model(job, method="lora", here=here)


def sample(place: str, *, task: SampleTask, choice: Choice, stop: StopRequest, clock: Clock, log: Log) -> list[Path]:
    """Draws `task`, whose model is found from the place; returns the pictures' files in the order of prompts."""
    with tempfile.TemporaryDirectory(prefix="sdjob-sample-") as folder:
        here = Here(scratch_root(None), check_stop=stop.check, clock=clock, log=log)
        backend = drawing_backend()
        source = find_source(place, choice=choice, scratch=Path(folder), here=here)
        task = replace(
            task,
            model=source.model,
            lora=source.lora,
            width=task.width or source.width,
            height=task.height or source.height,
            device=task.device if backend == "torch" else flax_device(),
        )
        task_file = Path(folder) / "task.json"
        write_task(task, task_file)
        make_folder(task.out)
        draw(task_file, task=task, backend=backend, stop=stop, clock=clock, log=log)
    numbers = [(prompt, image) for prompt in range(len(task.prompts)) for image in range(task.images)]
    return [task.out / picture_name(prompt=prompt, image=image) for prompt, image in numbers]


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"nothing can be written there: {error.strerror}.", where=f"--out {out}") from error


def drawing_backend() -> Backend:
    """Torch where it is installed, else flax. Nothing is imported to find out."""
    for backend, needs in NEEDS.items():
        if all(installed_version(package) for package in needs):
            return backend
    raise UnavailableError(
        "drawing needs torch or flax, and neither is installed here.", next_step="pip install 'sdjob[torch]', or 'sdjob[flax]'."
    )


def flax_device() -> Device:
    return "tpu" if tpus().chips else "cpu"


def draw(task_file: Path, *, task: SampleTask, backend: Backend, stop: StopRequest, clock: Clock, log: Log) -> None:
    def on_message(message: Message) -> None:
        if message["event"] == "picture":
            log.progress(f"drawing: {message['done']}/{message['of']}")

    shape = GangShape(
        backend=backend,
        num_processes=1,
        devices=1,
        device=task.device,
        threads=task.threads,
        deterministic=True,
        port=0,
    )
    gang = Gang(stop, clock, on_message=on_message, watch=lambda: None)
    gang.run(trainer_commands(task_file, shape=shape, environment=os.environ))

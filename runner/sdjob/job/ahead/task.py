"""The task whose step is made ahead: a model's configurations without its weights, and a job with nothing left open."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdjob.plan.families import ModelShape
from sdjob.plan.models import KnownModel
from sdjob.spec.hardware import parse_accelerator, resolve_deterministic, resolve_precision
from sdjob.spec.job import JobSpec
from sdjob.spec.task import TrainTask

NOWHERE = Path("/nowhere")
SCHEDULER_FILE = "scheduler/scheduler_config.json"
# Of all published Stable Diffusion models; memory does not depend on it.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}  # fmt: skip
INDEX_FILE = "model_index.json"
CONFIGURATIONS = (
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
    SCHEDULER_FILE,
    INDEX_FILE,
)


def ahead_task(job: JobSpec, *, model: KnownModel, folder: Path) -> TrainTask:
    """`folder` gets the model's configurations."""
    written = folder / "model"
    for name, text in configurations_of(model):
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_text(text, encoding="utf-8")
    return TrainTask(
        job=resolved(job), model=written, pictures=NOWHERE, index=NOWHERE, scratch=NOWHERE, total_steps=1, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=1,
    )  # fmt: skip


def resolved(job: JobSpec) -> JobSpec:
    machine = parse_accelerator(job.run.accelerator)
    train = {
        "precision": resolve_precision(job.train.precision, accelerator=machine),
        "deterministic": resolve_deterministic(job.train.deterministic, accelerator=machine),
    }
    return job.model_copy(update={"train": job.train.model_copy(update=train)})


def configurations_of(model: KnownModel) -> Iterator[tuple[str, str]]:
    """(name in the model's folder, text): the model's own where it lies on this machine."""
    if model.folder is not None:
        for name in CONFIGURATIONS:
            if (model.folder / name).is_file():
                yield name, (model.folder / name).read_text(encoding="utf-8")
        return
    yield from published(model.shape)


def published(shape: ModelShape) -> Iterator[tuple[str, str]]:
    yield "unet/config.json", json.dumps(shape.unet)
    yield "vae/config.json", json.dumps(shape.vae)
    for number, config in enumerate(shape.text_encoders, start=1):
        yield f"text_encoder{'' if number == 1 else f'_{number}'}/config.json", json.dumps(config)
    yield SCHEDULER_FILE, json.dumps(SCHEDULER)
    yield INDEX_FILE, "{}"

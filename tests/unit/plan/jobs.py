"""Jobs and models for the tests of this folder."""

from pathlib import Path
from typing import Any

from sdjob.plan.memory import Memory, memory_of
from sdjob.plan.models import KnownModel, known_model
from sdjob.plan.outlook import Outlook, outlook
from sdjob.plan.prices import read_prices
from sdjob.spec.job import JobSpec
from sdjob.spec.load import parse_job

SD15, SDXL = "hf://stable-diffusion-v1-5/stable-diffusion-v1-5", "hf://stabilityai/stable-diffusion-xl-base-1.0"


def make_job(accelerator: str | None = "nvidia-l4", *, source: str = SD15, px: int = 512, **parts: Any) -> JobSpec:
    """`train=dict(...)`, `run=...`, `data=...`, `checkpoint=...` are added to what stands here."""
    train = {"method": "lora", "steps": 1000, **parts.pop("train", {})}
    run = {**({"accelerator": accelerator} if accelerator else {}), **parts.pop("run", {})}
    data = {"source": "hf://me/pictures", "resolution": px, **parts.pop("data", {})}
    return parse_job(
        {"apiVersion": "sdjob/v1", "name": "x", "model": {"source": source}, "data": data, "train": train, "run": run, **parts}
    )


def model_of(job: JobSpec) -> KnownModel:
    return known_model(job.model, base=Path("/nowhere"))


def memory(*arguments: Any, **parts: Any) -> Memory:
    job = make_job(*arguments, **parts)
    return memory_of(job, model=model_of(job))


def plan_of(job: JobSpec, *, pictures: int | None = None) -> Outlook:
    return outlook(job, model=model_of(job), pictures=pictures, prices=read_prices(None))

"""What would make a job fit its device: changes of a field or two, the cheapest in time and quality first, each judged by the sum."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sdjob.plan.memory import memory_of
from sdjob.plan.models import KnownModel
from sdjob.spec.data import Resolution
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.support import unsupported

MOST = 3
SMALLEST_SIDE = 256


@dataclass(frozen=True)
class Change:
    fields: str
    """As `--set` takes them."""

    price: str
    """What it costs beside memory."""

    train: dict[str, Any]
    side: int | None = None

    def applied(self, job: JobSpec) -> JobSpec:
        data = job.data
        if self.side is not None:
            data = data.model_copy(update={"resolution": Resolution(width=self.side, height=self.side)})
        return job.model_copy(update={"train": job.train.model_copy(update=self.train), "data": data})


@dataclass(frozen=True)
class Fitting:
    changes: tuple[Change, ...]
    needed: int
    """Bytes, with them."""

    @property
    def fields(self) -> str:
        return " ".join(change.fields for change in self.changes)

    @property
    def price(self) -> str:
        return ", ".join(change.price for change in self.changes)


def fitting_changes(job: JobSpec, *, model: KnownModel) -> list[Fitting]:
    """The first of one change, then of two, then of three, that fit; none where nothing does."""
    candidates, found = list(changes_of(job)), list[Fitting]()
    for size in (1, 2, 3):
        for chosen in combinations(candidates, size):
            if len(found) == MOST:
                return found
            if any(all(change in chosen for change in known.changes) for known in found) or contradicts(chosen):
                continue
            changed = job
            for change in chosen:
                changed = change.applied(changed)
            memory = memory_of(changed, model=model)
            if memory.fits:
                found.append(Fitting(chosen, memory.needed))
    return found


def contradicts(chosen: tuple[Change, ...]) -> bool:
    """Two of them set one field."""
    fields = [change.fields.partition("=")[0] for change in chosen]
    return len(set(fields)) < len(fields)


def changes_of(job: JobSpec) -> Iterator[Change]:
    """Those that this version can carry out."""
    able = len(unsupported(job))
    for change in every_change(job):
        if len(unsupported(change.applied(job))) <= able:
            yield change


def every_change(job: JobSpec) -> Iterator[Change]:
    train, machine = job.train, parse_accelerator(job.run.accelerator)
    if train.precision == "fp32" and machine.kind != "cpu":
        yield Change("train.precision=auto", "rounding", {"precision": "auto"})
    if train.device_batch > 1:
        half = train.device_batch // 2
        if train.global_batch % half == 0 and train.global_batch % train.device_batch == 0:
            yield Change(f"train.device_batch={half}", "the same batch in more micro-steps", {"device_batch": half})
            yield Change("train.device_batch=1", "the same batch in more micro-steps", {"device_batch": 1})
    if train.cache == "never" and train.text_encoder == "frozen" and job.data.crop == "center":
        yield Change("train.cache=auto", "encoders run once", {"cache": "auto"})
    if train.ema is not None:
        yield Change("train.ema=null", "no average of the weights", {"ema": None})
    if not train.gradient_checkpointing:
        yield Change("train.gradient_checkpointing=true", "about a third more work", {"gradient_checkpointing": True})
    if train.optimizer.name == "adamw" and train.backend == "torch" and machine.kind == "nvidia":
        optimizer = train.optimizer.model_copy(update={"name": "adamw8bit"})
        yield Change("train.optimizer.name=adamw8bit", "moments of 8 bits", {"optimizer": optimizer})
    if train.optimizer.name == "adamw":
        optimizer = train.optimizer.model_copy(update={"name": "adafactor"})
        yield Change("train.optimizer.name=adafactor", "another optimizer", {"optimizer": optimizer})
    side = min(job.data.resolution.width, job.data.resolution.height)
    for smaller in (side * 3 // 4 // 64 * 64, side // 2 // 64 * 64):
        if smaller >= SMALLEST_SIDE:
            yield Change(f"data.resolution={smaller}", "smaller pictures", {}, side=smaller)
    if train.method == "full":
        yield Change("train.method=lora", "a LoRA instead of the whole UNet", {"method": "lora"})

"""What would make a job fit its device: a few fields changed, the cheapest in time and quality first, each judged by the sum."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from sdjob.plan.memory import memory_of
from sdjob.plan.models import KnownModel
from sdjob.spec.data import Resolution
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.support import unsupported
from sdjob.spec.train import TrainSpec

MOST = 3
SMALLEST_SIDE, SIDES = 256, 64
METHOD, SPREAD, OPTIMIZER = "train.method", "train.fsdp", "train.optimizer.name"


@dataclass(frozen=True)
class Change:
    fields: tuple[str, ...]
    """As `--set` takes them."""

    price: str
    """What it costs beside memory."""

    train: dict[str, Any] = field(default_factory=dict[str, Any])
    side: int | None = None

    @property
    def name(self) -> str:
        return self.fields[0].partition("=")[0]

    def applied(self, job: JobSpec) -> JobSpec:
        data = job.data
        if self.side is not None:
            data = data.model_copy(update={"resolution": Resolution(width=self.side, height=self.side)})
        train = job.train.model_copy(update=self.train)
        return job.model_copy(update={"train": train, "data": data})


@dataclass(frozen=True)
class Fitting:
    changes: tuple[Change, ...]
    needed: int
    """Bytes, with them."""

    @property
    def fields(self) -> list[str]:
        return [field for change in self.changes for field in change.fields]

    @property
    def names(self) -> set[str]:
        return {change.name for change in self.changes}

    @property
    def price(self) -> str:
        return ", ".join(change.price for change in self.changes)


def fitting_changes(job: JobSpec, *, model: KnownModel) -> list[Fitting]:
    """At most three ways to fit: those of one change first, then of two, then of three; another method comes last."""
    found = list[Fitting]()
    for chosen in ways(list(changes_of(job))):
        if len(found) == MOST:
            break
        names = Fitting(chosen, 0).names
        if (SPREAD in names and names & {OPTIMIZER, METHOD}) or any(known.names <= names for known in found):
            continue
        memory = memory_of(with_all(job, chosen), model=model)
        if memory.fits:
            found.append(Fitting(chosen, memory.needed))
    return found


def ways(candidates: list[Change]) -> Iterator[tuple[Change, ...]]:
    within = [change for change in candidates if change.name != METHOD]
    for among in (within, candidates):
        for size in (1, 2, 3):
            yield from combinations(among, size)


def with_all(job: JobSpec, changes: tuple[Change, ...]) -> JobSpec:
    for change in changes:
        job = change.applied(job)
    return job


def changes_of(job: JobSpec) -> Iterator[Change]:
    """Those that this version can carry out."""
    refused = len(unsupported(job))
    for of_one_kind in (precision, batches, caching, spreading, averages, checkpointing, optimizers, sides, methods):
        for change in of_one_kind(job):
            if len(unsupported(change.applied(job))) <= refused:
                yield change


# ---- what may be changed, the cheapest first -------------------------------------------------------------------------------


def precision(job: JobSpec) -> Iterator[Change]:
    if job.train.precision == "fp32" and parse_accelerator(job.run.accelerator).kind != "cpu":
        yield Change(("train.precision=auto",), "sums are rounded more coarsely", {"precision": "auto"})


def batches(job: JobSpec) -> Iterator[Change]:
    """The batch of a step stays what it is, so the file must say it."""
    device_batch, global_batch = job.train.device_batch, job.train.global_batch
    for smaller in dict.fromkeys([device_batch // 2, 1]) if device_batch > 1 else ():
        if device_batch % smaller == 0:
            fields = (f"train.device_batch={smaller}", f"train.global_batch={global_batch}")
            yield Change(fields, "the same batch in more micro-steps", {"device_batch": smaller})


def caching(job: JobSpec) -> Iterator[Change]:
    if job.train.cache == "never" and job.train.text_encoder == "frozen" and job.data.crop == "center":
        yield Change(("train.cache=auto",), "encoders run once", {"cache": "auto"})


def spreading(job: JobSpec) -> Iterator[Change]:
    """As far as spec/sense/fsdp.py goes."""
    train, several = job.train, parse_accelerator(job.run.accelerator).devices_per_node > 1 and job.run.nodes == 1
    spreads = (train.backend, train.method, train.optimizer.name, train.text_encoder) == ("torch", "full", "adamw", "frozen")
    if several and spreads and not train.fsdp:
        yield Change((f"{SPREAD}=true",), "weights and gradients go from GPU to GPU at each micro-step", {"fsdp": True})


def averages(job: JobSpec) -> Iterator[Change]:
    ema = job.train.ema
    if ema is not None and not ema.offload:
        offloaded = ema.model_copy(update={"offload": True})
        yield Change(("train.ema.offload=true",), "two copies of the weights over the bus at each step", {"ema": offloaded})
    if ema is not None:
        yield Change(("train.ema=null",), "no average of the weights", {"ema": None})


def checkpointing(job: JobSpec) -> Iterator[Change]:
    if not job.train.gradient_checkpointing:
        yield Change(("train.gradient_checkpointing=true",), "about a third more work", {"gradient_checkpointing": True})


def optimizers(job: JobSpec) -> Iterator[Change]:
    if job.train.optimizer.name != "adamw" or job.train.fsdp:
        return
    if job.train.backend == "torch" and parse_accelerator(job.run.accelerator).kind == "nvidia":
        yield optimizer("adamw8bit", train=job.train, price="moments of 8 bits")
    yield optimizer("adafactor", train=job.train, price="another optimizer")


def optimizer(name: str, *, train: TrainSpec, price: str) -> Change:
    return Change((f"{OPTIMIZER}={name}",), price, {"optimizer": train.optimizer.model_copy(update={"name": name})})


def sides(job: JobSpec) -> Iterator[Change]:
    resolution = job.data.resolution
    if resolution.width != resolution.height:
        return
    for smaller in (resolution.width * 3 // 4, resolution.width // 2):
        side = smaller // SIDES * SIDES
        if side >= SMALLEST_SIDE:
            yield Change((f"data.resolution={side}",), "smaller pictures", side=side)


def methods(job: JobSpec) -> Iterator[Change]:
    if job.train.method == "full":
        whole = (f"{SPREAD}=false",) if job.train.fsdp else ()
        yield Change((f"{METHOD}=lora", *whole), "a LoRA instead of the whole UNet", {"method": "lora", "fsdp": False})

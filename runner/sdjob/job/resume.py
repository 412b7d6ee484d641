"""What an attempt starts from: resolved values, the identity check, and whether going on is exact. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdjob.core.cpu import Isa
from sdjob.core.errors import UsageError
from sdjob.data.order import total_steps
from sdjob.spec.hardware import Accelerator, resolve_deterministic, resolve_precision
from sdjob.spec.identity import explain_difference, identity_hash, identity_parts, rounding_part, steps_may_grow
from sdjob.spec.job import JobSpec

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Resolution:
    """The values that an attempt runs with. Those of the first attempt are kept by all later ones."""

    job: JobSpec
    total_steps: int
    threads: int
    identity: dict[str, Any]
    isa: Isa = "avx2"
    encodes_once: bool = False
    """Whether the encoders run before the training, and not at every step."""

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What is not in the identity, and yet changes the order of additions."""
        train = rounding_part(self.job)["train"]
        return {"train": {**train, "cache": "used" if self.encodes_once else "not used"}}

    @property
    def identity_hash(self) -> str:
        return identity_hash(self.identity)


def resolve(
    job: JobSpec,
    *,
    accelerator: Accelerator,
    num_cores: int,
    num_pictures: int,
    index_sha256: str,
    model_hashes: Mapping[str, str],
    stored: Facts | None,
    widest_isa: Isa = "avx2",
    encodes_once: bool = False,
) -> Resolution:
    """`stored`: the facts of the commit that the attempt goes on from; None at a fresh start. `widest_isa`: of this CPU."""
    train = job.train
    precision = resolve_precision(train.precision, accelerator=accelerator)
    if stored is not None and train.precision == "auto":
        precision = stored["precision"]
    resolved = train.model_copy(
        update={"precision": precision, "deterministic": resolve_deterministic(train.deterministic, accelerator=accelerator)}
    )
    job = job.model_copy(update={"train": resolved})
    steps = train.steps
    if steps is None:
        assert train.epochs is not None, "a valid job has steps or epochs"
        steps = total_steps(train.epochs, num_pictures=num_pictures, global_batch=train.global_batch)
    return Resolution(
        job=job,
        total_steps=steps,
        threads=threads_of(stored, job=job, accelerator=accelerator, num_cores=num_cores),
        identity=identity_parts(job, model_hashes=model_hashes, index_sha256=index_sha256),
        isa=isa_of(stored, widest=widest_isa, nodes=job.run.nodes),
        encodes_once=encodes_once,
    )


def threads_of(stored: Facts | None, *, job: JobSpec, accelerator: Accelerator, num_cores: int) -> int:
    """Of each process: the first attempt's."""
    if stored is not None:
        return stored["fingerprint"]["threads"]
    return max(1, num_cores // num_processes(job, accelerator=accelerator))


def isa_of(stored: Facts | None, *, widest: Isa, nodes: int) -> Isa:
    """The first attempt's, where this CPU has it. Of a gang each machine's CPU may be another: it takes what all have."""
    if nodes > 1 or (stored is not None and str(stored["fingerprint"].get("isa")).lower() == "avx2"):
        return "avx2"
    return widest


def num_processes(job: JobSpec, *, accelerator: Accelerator) -> int:
    """Of one node: torch has one for each device, flax one for all of them."""
    return accelerator.devices_per_node if job.train.backend == "torch" else 1


def check_identity(resolution: Resolution, *, stored: Facts) -> None:
    """Refuses to go on with another job than the one that made the checkpoint."""
    different = explain_difference(stored["identity"], resolution.identity)
    if different:
        listed = "\n  ".join(different)
        raise UsageError(
            f"this run was trained with another job; what differs:\n  {listed}\n",
            where="checkpoint.to",
            next_step="Put these fields back, or give checkpoint.to a new place to start a new run.",
        )
    grown = resolution.total_steps - stored["total_steps"]
    if grown and not steps_may_grow(resolution.job):
        raise UsageError(
            f"the run was planned for {stored['total_steps']} steps and the job now says {resolution.total_steps}, but the "
            f"learning rate's schedule {resolution.job.train.schedule.name} depends on the number of steps.",
            where="train.steps",
            next_step="Put the number back, or give checkpoint.to a new place.",
        )


def check_length(resolution: Resolution, *, step: int) -> None:
    if step > resolution.total_steps:
        raise UsageError(
            f"the run has {step} steps already, more than the {resolution.total_steps} asked for.",
            where="train.steps",
            next_step="Export the checkpoint of that step (`sdjob export`), or raise train.steps.",
        )


def inexact_because(stored: Facts, *, fingerprint: Facts, resolution: Resolution) -> list[str]:
    """Why going on is correct to rounding and not bit for bit; empty where it is exact."""
    reasons = list(stored.get("inexact", []))
    before = stored["fingerprint"]
    reasons += [f"{key}: {before.get(key)} -> {value}" for key, value in fingerprint.items() if before.get(key) != value]
    reasons += explain_difference(stored["arithmetic"], resolution.arithmetic)
    if not resolution.job.train.deterministic:
        reasons.append("train.deterministic is false")
    return list(dict.fromkeys(reasons))

"""Backend, number format, attention and optimizer against each other and against the hardware."""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.sense.machines import ACCELERATOR, known_accelerator

BACKEND = at("train.backend")


def backend(job: JobSpec) -> Iterator[Finding]:
    named = known_accelerator(job)
    if named and named.kind == "tpu" and job.train.backend == "torch":
        yield Finding(
            BACKEND, "torch does not train on TPUs here", "set flax, or name a GPU in run.accelerator", reads=(ACCELERATOR,)
        )


def precision(job: JobSpec) -> Iterator[Finding]:
    train, named = job.train, known_accelerator(job)
    path, reads = at("train.precision"), (BACKEND, ACCELERATOR)
    if train.precision == "fp16" and train.backend == "flax":
        yield Finding(path, "fp16 needs loss scaling, which is for torch only", "allowed on flax: auto, fp32, bf16", reads=reads)
    elif train.precision == "fp16" and named and named.kind == "tpu":
        yield Finding(path, "TPUs do not train in fp16", "allowed on TPUs: auto, fp32, bf16", reads=reads)
    if train.precision == "bf16" and named and not named.has_bf16:
        yield Finding(path, f"{job.run.accelerator} has no bf16", "allowed there: auto, fp32, fp16", reads=reads)


def attention(job: JobSpec) -> Iterator[Finding]:
    train, named = job.train, known_accelerator(job)
    if train.attention != "xformers":
        return
    path, allowed = at("train.attention"), "allowed there: sdpa"
    if train.backend == "flax":
        yield Finding(path, "xformers is for torch, and the backend is flax", allowed, reads=(BACKEND,))
    elif named and named.kind != "nvidia":
        yield Finding(path, f"xformers needs CUDA, and the accelerator is {job.run.accelerator}", allowed, reads=(ACCELERATOR,))
    if train.deterministic is True:
        what = "xformers has no deterministic backward pass, and train.deterministic is true"
        yield Finding(path, what, allowed, reads=(at("train.deterministic"),))


def compiling(job: JobSpec) -> Iterator[Finding]:
    train, path = job.train, at("train.compile")
    if train.compile and train.backend == "flax":
        yield Finding(path, "is for torch: flax always compiles", "leave it out", reads=(BACKEND,))
    elif train.compile and train.fsdp:
        what = "blocks whose weights are spread over devices are not compiled"
        yield Finding(path, what, "leave out one of the two", reads=(at("train.fsdp"),))


def optimizer(job: JobSpec) -> Iterator[Finding]:
    named = known_accelerator(job)
    if job.train.optimizer.name != "adamw8bit":
        return
    path, instead = at("train.optimizer.name"), "adamw runs everywhere"
    if job.train.backend == "flax":
        yield Finding(path, "adamw8bit is for torch, and the backend is flax", instead, reads=(BACKEND,))
    elif named and named.kind != "nvidia":
        yield Finding(path, f"adamw8bit needs CUDA, and the accelerator is {job.run.accelerator}", instead, reads=(ACCELERATOR,))

"""Options of the loss, the optimizer and the LoRA against each other."""

import re
from collections.abc import Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.sense.kernels import BACKEND


def one_file(job: JobSpec) -> Iterator[Finding]:
    model, source = job.model, at("model.source")
    named = model.source.endswith(".safetensors")
    if named and model.file:
        yield Finding(at("model.file"), "the source names a file too", "take one of them out", reads=(source,))
    if (named or model.file) and model.variant:
        yield Finding(at("model.variant"), "a model in one file has no variants", "take it out", reads=(source,))
    if model.config and not (named or model.file):
        yield Finding(
            at("model.config"),
            "does nothing beside a model folder, which has its own configurations",
            "take it out",
            reads=(source,),
        )


def zero_terminal_snr(job: JobSpec) -> Iterator[Finding]:
    loss = job.train.loss
    if loss.zero_terminal_snr and loss.prediction == "epsilon":
        what = "where the input is noise alone, a prediction of the noise says nothing of the picture"
        yield Finding(
            at("train.loss.zero_terminal_snr"), what, "set false, or train a model of v_prediction",
            reads=(at("train.loss.prediction"),),
        )  # fmt: skip


def optimizer(job: JobSpec) -> Iterator[Finding]:
    spec, default, name = job.train.optimizer, type(job.train.optimizer)(), at("train.optimizer.name")
    if spec.name == "prodigy" and job.train.backend == "flax":
        yield Finding(
            name, "prodigy is for torch, and the backend is flax", "allowed on flax: adamw, adafactor", reads=(BACKEND,)
        )
    if spec.name == "adafactor":
        for field in ("betas", "epsilon"):
            if getattr(spec, field) != getattr(default, field):
                yield Finding(at(f"train.optimizer.{field}"), "does nothing with adafactor", "take it out", reads=(name,))
    if spec.name != "prodigy" and spec.prodigy != default.prodigy:
        yield Finding(at("train.optimizer.prodigy"), f"does nothing with {spec.name}", "take it out", reads=(name,))


def dora(job: JobSpec) -> Iterator[Finding]:
    if job.train.lora.dora and job.train.backend == "flax":
        yield Finding(at("train.lora.dora"), "DoRA is for torch, and the backend is flax", "set false", reads=(BACKEND,))


def learning_rate_pattern(job: JobSpec) -> Iterator[Finding]:
    rates = {*job.train.lora.learning_rate_pattern.values(), job.train.optimizer.learning_rate} - {0.0}
    if job.train.optimizer.name == "prodigy" and len(rates) > 1:
        what = "prodigy has one learning rate, and rates by pattern may be 0 alone beside it"
        yield Finding(
            at("train.lora.learning_rate_pattern"), what, "set rates of 0, or name another optimizer",
            reads=(at("train.optimizer.name"),),
        )  # fmt: skip


def patterns(job: JobSpec) -> Iterator[Finding]:
    for field in ("rank_pattern", "alpha_pattern", "learning_rate_pattern"):
        for pattern in getattr(job.train.lora, field):
            try:
                re.compile(pattern)
            except re.error as error:
                allowed = "allowed: regular expressions for the ends of modules' names, as to_q or down_blocks.*to_k"
                yield Finding(at(f"train.lora.{field}"), f"'{pattern}' is no regular expression: {error}", allowed)

"""What is trained, and what of the frozen encoders may be computed once."""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at

METHOD, CACHE = at("train.method"), at("train.cache")


def lora_block(job: JobSpec) -> Iterator[Finding]:
    if job.train.method == "full" and "lora" in job.train.model_fields_set:
        yield Finding(at("train.lora"), "does nothing with method full", "take it out, or set method: lora", reads=(METHOD,))


def text_encoder(job: JobSpec) -> Iterator[Finding]:
    """A LoRA file holds no full weights, and a pipeline's folder no LoRA layers."""
    encoder, method = job.train.text_encoder, job.train.method
    if encoder not in {"frozen", method}:
        what = f"{encoder} does not go with method {method}: one result cannot hold both kinds"
        yield Finding(at("train.text_encoder"), what, f"allowed: frozen, {method}", reads=(METHOD,))


def cache(job: JobSpec) -> Iterator[Finding]:
    if job.train.cache != "always":
        return
    instead = "set train.cache: auto, or never"
    if job.data.crop == "random":
        what = "always keeps one encoding of each picture, and data.crop: random makes a new picture at each step"
        yield Finding(CACHE, what, instead, reads=(at("data.crop"),))
    if job.train.text_encoder != "frozen":
        what = "always keeps one encoding of each caption, and train.text_encoder changes the encoder at each step"
        yield Finding(CACHE, what, instead, reads=(at("train.text_encoder"),))
    if job.data.caption_dropout > 0:
        what = "always keeps one encoding of each caption, and data.caption_dropout changes captions from step to step"
        yield Finding(CACHE, what, instead, reads=(at("data.caption_dropout"),))

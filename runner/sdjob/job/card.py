"""The model card: README.md beside published weights. It names no path, host or variable of the environment.

Front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import yaml

from sdjob.diffusion.family import Family
from sdjob.job.licence import Licence
from sdjob.job.weights import kohya_file_name
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.spec.sources import data_sources

CARD_NAME = "README.md"
CARD_MARK = "trained with sdjob"  # in every card; publish knows its own cards by it
TAGS = ("text-to-image", "diffusers", "sdjob")
FAMILY_TAGS: dict[Family, tuple[str, ...]] = {
    "sd1": ("stable-diffusion", "stable-diffusion-diffusers"),
    "sd2": ("stable-diffusion", "stable-diffusion-diffusers"),
    "sdxl": ("stable-diffusion-xl", "stable-diffusion-xl-diffusers"),
}
PIPELINES: dict[Family, str] = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}
MARKDOWN_SPECIALS = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
EXACTNESS = {
    "exact": "exact: bit for bit the weights of a run that was never interrupted",
    "rounding": "correct to rounding, not bit-exact: the hardware or a setting that only rounds differently changed on the way",
}


@dataclass(frozen=True)
class SamplePicture:
    file: str
    """Relative to the card, with forward slashes."""

    prompt: str


@dataclass(frozen=True)
class CardFacts:
    """What the job file alone does not say."""

    step: int
    digest: str
    precision: str
    num_pictures: int
    sdjob_version: str
    resume: Literal["exact", "rounding"]
    trigger_caption: str | None = None
    """The caption, where all pictures have the same one."""

    samples: tuple[SamplePicture, ...] = ()
    family: Family = "sd1"


def model_card(job: JobSpec, *, facts: CardFacts, licence: Licence | None) -> str:
    sections = [
        front_matter(job, facts=facts, licence=licence),
        f"# {escaped(job.name)}\n\n{introduction(job, facts=facts, licence=licence)}",
        sample_table(facts.samples),
        f"## Use\n\n{usage(job, facts=facts)}",
        f"## Training\n\n{training_table(job, facts=facts)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def one_line(text: str) -> str:
    """Front matter ends at a line of dashes, so no text in it may bring one. CLIP's tokenizer folds white space likewise."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Text as Markdown shows it: on one line, nothing in it a mark of its own."""
    return MARKDOWN_SPECIALS.sub(r"\\\1", one_line(text))


def as_literal(text: str) -> str:
    """A Python string literal that cannot close the block of code around it."""
    return json.dumps(text).replace("`", "\\u0060")


def hub_id(text: str) -> str | None:
    """owner/name of an hf:// place; None for others, which are nobody else's business."""
    place = parse_place(text, base=Path("/"))
    return place.name if place.scheme == "hf" else None


def front_matter(job: JobSpec, *, facts: CardFacts, licence: Licence | None) -> str:
    base = hub_id(job.model.source)
    is_lora = job.train.method == "lora"
    content: dict[str, Any] = licence.front_matter() if licence else {}
    if base:
        content |= {"base_model": base, "base_model_relation": "adapter" if is_lora else "finetune"}
    places = [source.source for source in data_sources(job.data) if source.role == "train"]
    datasets = [name for name in map(hub_id, dict.fromkeys(places)) if name]
    content |= {"datasets": datasets} if datasets else {}
    content |= {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    tags = (*TAGS, *FAMILY_TAGS[facts.family])
    content |= {"tags": sorted([*tags, "lora"] if is_lora else tags)}
    if facts.trigger_caption:
        content |= {"instance_prompt": one_line(facts.trigger_caption)}
    if examples := widget(job, samples=facts.samples):
        content |= {"widget": examples}
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)}---"


def widget(job: JobSpec, *, samples: tuple[SamplePicture, ...]) -> list[dict[str, Any]]:
    """The pictures that there are; for other prompts of the job the prompt alone."""
    shown = [{"text": one_line(sample.prompt), "output": {"url": quote(sample.file)}} for sample in samples]
    prompts = job.validation.prompts if job.validation else ()
    seen = {sample.prompt for sample in samples}
    return [*shown, *({"text": one_line(prompt)} for prompt in prompts if prompt not in seen)]


def introduction(job: JobSpec, *, facts: CardFacts, licence: Licence | None) -> str:
    several = "text encoders" if facts.family == "sdxl" else "text encoder"
    trained = "UNet" if job.train.text_encoder == "frozen" else f"UNet and {several}"
    if job.train.method == "lora":
        what = "LoRA weights for" if trained == "UNet" else f"LoRA weights ({trained}) for"
    else:
        what = f"A Stable Diffusion{' XL' if facts.family == 'sdxl' else ''} pipeline, its {trained} fine-tuned from"
    base = hub_id(job.model.source)
    of_what = f"[{base}](https://huggingface.co/{base})" if base else "a base model that is not on the Hub"
    if licence is None:
        terms = "The base model's folder names no licence; whatever its terms are, they hold for these weights too."
    else:
        terms = f"The base model's licence ({escaped(licence.title)}) holds for these weights too."
    return f"{what} {of_what}, {CARD_MARK}.\n\n{terms}"


def sample_table(samples: tuple[SamplePicture, ...]) -> str:
    if not samples:
        return ""
    rows = [f"| {escaped(sample.prompt)} | ![]({quote(sample.file)}) |" for sample in samples]
    return "\n".join(["## Samples", "", "| prompt | picture |", "|---|---|", *rows])


def usage(job: JobSpec, *, facts: CardFacts) -> str:
    prompts = job.validation.prompts if job.validation else ()
    prompt = facts.trigger_caption or next(iter(prompts), "a picture of what it was trained on")
    trigger = [f"Every picture had the same caption, so use it in prompts: {escaped(prompt)}", ""]
    return "\n".join(
        [
            *(trigger if facts.trigger_caption else []),
            *snippet(job, prompt=prompt, pipeline=PIPELINES[facts.family]),
            *kohya_note(job),
        ]
    )


def snippet(job: JobSpec, *, prompt: str, pipeline: str) -> list[str]:
    make = f"pipeline = {pipeline}.from_pretrained({{}})"
    weights = 'weights = "."  # this folder, or its name on the Hub'
    base = hub_id(job.model.source)
    if job.train.method == "lora":
        model = f'base = "{base}"' if base else 'base = "BASE_MODEL"  # the base model\'s folder'
        one_precision = ".to(torch.float32)  # whatever its parts are stored in"
        load = [model, weights, make.format("base") + one_precision, "pipeline.load_lora_weights(weights)", *schedule_lines(job)]
    else:
        load = [weights, make.format("weights")]
    scheduler = ["from diffusers import DDIMScheduler"] if schedule_lines(job) and job.train.method == "lora" else []
    torch = ["import torch"] if job.train.method == "lora" else []
    imports = [*torch, *scheduler, f"from diffusers import {pipeline}"]
    draw = [f"picture = pipeline({as_literal(prompt)}).images[0]"]
    return ["```python", *imports, "", *load, *draw, "```"]


def schedule_lines(job: JobSpec) -> list[str]:
    """A LoRA that was trained at zero terminal SNR is drawn so; a pipeline's folder says it itself."""
    if not job.train.loss.zero_terminal_snr:
        return []
    given = 'rescale_betas_zero_snr=True, timestep_spacing="trailing"'
    return [f"pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, {given})"]


def kohya_note(job: JobSpec) -> list[str]:
    if job.train.method != "lora":
        return []
    if job.train.lora.dora:
        return ["", "It is a DoRA, for diffusers alone: ComfyUI and A1111 would draw it otherwise than it was trained."]
    return ["", f"For ComfyUI and A1111, put `{kohya_file_name(job)}` into their folder of LoRA models."]


def training_table(job: JobSpec, *, facts: CardFacts) -> str:
    rows = [*method_rows(job), *run_rows(facts)]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {escaped(str(value))} |" for name, value in rows)])


def method_rows(job: JobSpec) -> list[tuple[str, object]]:
    train, size = job.train, job.data.resolution
    lora = f", rank {train.lora.rank}, alpha {train.lora.alpha:g}" if train.method == "lora" else ""
    dora = ", DoRA" if train.method == "lora" and train.lora.dora else ""
    return [
        ("method", f"{train.method}{lora}{dora}"),
        ("optimizer", f"{train.optimizer.name}, learning rate {train.optimizer.learning_rate:g} ({train.schedule.name})"),
        ("pictures a step", train.global_batch),
        ("resolution", f"{size.width} x {size.height}"),
        ("moving average", f"decay {train.ema.decay:g}" if train.ema else "none"),
        ("seed", train.seed),
    ]


def run_rows(facts: CardFacts) -> list[tuple[str, object]]:
    return [
        ("steps", facts.step),
        ("pictures", facts.num_pictures),
        ("precision", facts.precision),
        ("resume", EXACTNESS[facts.resume]),
        ("digest of the checkpoint", facts.digest),
        ("sdjob", facts.sdjob_version),
    ]

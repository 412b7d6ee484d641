"""The job file as frozen models; JobSpec is the whole of it."""

from typing import Literal

from pydantic import Field

from sdjob.spec.checkpoint import CheckpointSpec, PublishSpec, ValidationSpec
from sdjob.spec.data import DataSpec
from sdjob.spec.part import Part
from sdjob.spec.run import RunSpec
from sdjob.spec.train import TrainSpec

JOB_KEY = "job.yaml"  # the resolved job, at the run's place
LONGEST_NAME = 40  # of 63 in a DNS label: host names of gangs add the rest
NAME = rf"^[a-z0-9]([a-z0-9-]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?$"
# Editors see the file before variables are filled in.
NAME_OR_VARIABLE = rf"{NAME}|\$\{{[A-Za-z_][A-Za-z0-9_]*\}}"


class ModelSpec(Part):
    """The model that is fine-tuned."""

    source: str
    """The place of a diffusers model folder, or of a model in one .safetensors file."""
    revision: str | None = "main"
    """The branch, tag or commit of an hf:// source; resolved to a commit and recorded."""
    variant: str | None = Field(default=None, min_length=1)
    """The variant of the weight files, as fp16."""
    file: str | None = Field(default=None, pattern=r"^[^/]+\.safetensors$")
    """The file's name, where `source` holds models in one file each, as a repository on the Hub may."""
    config: str | None = None
    """Of a model in one file: the place of a diffusers folder of the same model, whose configurations and tokenizer are read and
    not its weights; null takes Stable Diffusion 1.5's or SDXL's own from the Hub."""
    vae: str | None = None
    """The place of another VAE to use instead of the model's own."""


class JobSpec(Part):
    """One fine-tuning job of Stable Diffusion."""

    apiVersion: Literal["sdjob/v1"]
    """The version of this format."""
    name: str = Field(pattern=NAME, json_schema_extra={"pattern": NAME_OR_VARIABLE})
    """A DNS label: at most 40 small letters, digits and hyphens, with a letter or digit at both ends."""
    model: ModelSpec
    """The model that is fine-tuned."""
    data: DataSpec
    """The pictures and captions that are trained on."""
    train: TrainSpec
    """The method and all that decides which weights come out."""
    validation: ValidationSpec | None = None
    """Pictures that are drawn during training; null draws none."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """Where the run's state is committed."""
    publish: tuple[PublishSpec, ...] = ()
    """Places that get the finished weights."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers beside the ledger, which is always kept."""
    run: RunSpec = RunSpec()
    """On what machines the job runs, and for how long."""


def measured_every_steps(job: JobSpec) -> int | None:
    """Between two losses on held-out pictures; None where nothing is held out."""
    asked = job.validation or ValidationSpec()
    return None if job.data.held_out is None else asked.loss_every_steps or asked.every_steps


def loss_timesteps(job: JobSpec) -> int:
    return (job.validation or ValidationSpec()).loss_timesteps

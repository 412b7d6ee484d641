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
    """The place of a diffusers model folder."""
    revision: str | None = "main"
    """The branch, tag or commit of an hf:// source; resolved to a commit and recorded."""
    variant: str | None = Field(default=None, min_length=1)
    """The variant of the weight files, as fp16."""
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

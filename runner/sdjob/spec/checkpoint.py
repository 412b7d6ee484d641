"""`validation`, `checkpoint` and `publish`: what leaves a run, and how often."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from sdjob.spec.part import Part


def without_default(schema: dict[str, Any]) -> None:
    """The default is derived from other fields, so that the schema has none to show."""
    del schema["default"]


class ValidationSpec(Part):
    """Pictures that are drawn during training, so that a person sees where it goes, and the loss on `data.held_out`."""

    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The captions to draw; may be left out where `data.held_out` gives something to validate on."""
    every_steps: int = Field(default=500, ge=1)
    """Optimizer steps between two drawings."""
    loss_every_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two computations of the loss on `data.held_out`; absent: as `every_steps`."""
    loss_timesteps: int = Field(default=8, ge=1, le=100)
    """At so many timesteps, spread evenly over the schedule, the loss of each held-out picture is computed."""
    images: int = Field(default=4, ge=1)
    """Pictures for each prompt."""
    inference_steps: int = Field(default=30, ge=1)
    """Denoising steps of a picture."""
    guidance_scale: float = Field(default=7.5, ge=0)
    """How strongly a picture follows its prompt (arXiv 2207.12598)."""


def drawn_every_steps(validation: ValidationSpec | None) -> int | None:
    """None where no pictures are drawn."""
    return validation.every_steps if validation is not None and validation.prompts else None


class CheckpointSpec(Part):
    """Where the run's state is committed, how often, and how much of it is kept."""

    to: str = Field(default="", json_schema_extra=without_default)
    """A place: file, s3 or gs; absent: runs/NAME below the working directory."""
    every_steps: int | None = Field(default=500, ge=1)
    """Commit at every multiple of so many optimizer steps; the last step is always committed."""
    every_seconds: float | None = Field(default=None, gt=0)
    """Commit when so many seconds have passed since the last commit."""
    every: Literal["auto"] | None = None
    """auto: as often as the measured time of a save makes cheap."""
    keep: int = Field(default=3, ge=1)
    """How many of the newest checkpoints are kept."""
    keep_every: int | None = Field(default=None, ge=1)
    """Checkpoints at multiples of so many steps are kept for good."""
    unsafe_single_writer: bool = False
    """Use a store without conditional writes; two attempts at once then destroy each other's work."""


class PublishSpec(Part):
    """A place that gets the finished weights, the samples and the model card."""

    to: str
    """A place of any kind."""
    private: bool = True
    """Whether a repository that is made on the Hub is private."""
    every_steps: int | None = Field(default=None, ge=1)
    """Publish during training too, at every multiple of so many optimizer steps."""
    replace: bool = False
    """Overwrite what another run has published there."""


def early_steps(publish: Sequence[PublishSpec]) -> tuple[int, ...]:
    """At the multiples of which something is published during training."""
    return tuple(target.every_steps for target in publish if target.every_steps is not None)

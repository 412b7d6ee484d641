"""`data`: which pictures and captions, and how a picture becomes a training sample."""

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from sdjob.spec.part import Part

SMALLEST_SIDE = 64  # the UNet halves the latent three times: 64 pixels are 8 latents are 1
SIDE_STEP = 8  # the VAE makes one latent of 8 x 8 pixels

Side = Annotated[int, Field(ge=SMALLEST_SIDE, multiple_of=SIDE_STEP)]


class Resolution(Part):
    """The size in pixels of the pictures that are trained on."""

    width: Side
    """Pixels, a multiple of 8, at least 64."""
    height: Side
    """Pixels, a multiple of 8, at least 64."""


def without_default(schema: dict[str, Any]) -> None:
    """What stands for "not given" is no value that a person may write."""
    del schema["default"]


def square(value: Any) -> "dict[str, Any] | Resolution":
    """The shorthand `512` as `{width: 512, height: 512}`; anything else as it is, for the model to judge."""
    if isinstance(value, dict | Resolution):
        return cast("dict[str, Any] | Resolution", value)
    return {"width": value, "height": value}


class BucketsSpec(Part):
    """Aspect-ratio buckets: pictures are grouped by shape, and a batch never mixes shapes."""

    step: int = Field(default=64, ge=SIDE_STEP, multiple_of=SIDE_STEP)
    """Pixels between the sides of neighbouring buckets, a multiple of 8."""
    min: Side = 384
    """The shortest side of a bucket in pixels, a multiple of `step`."""
    max: Side = 768
    """The longest side of a bucket in pixels, a multiple of `step`."""


class PlaceSpec(Part):
    """One place that pictures come from."""

    source: str
    """The place of the data: a `datasets` data set, an image folder, parquet, or webdataset shards."""
    revision: str | None = "main"
    """The branch, tag or commit of an hf:// source; resolved to a commit and recorded."""
    config: str | None = Field(default=None, min_length=1)
    """The configuration (subset) of the data set."""
    split: str = Field(default="train", min_length=1)
    """The split of the data set."""
    image_column: str = Field(default="image", min_length=1)
    """The column with the pictures."""


class SourceSpec(PlaceSpec):
    """One of several places that pictures come from, each with its own columns."""

    caption_column: str = Field(default="text", min_length=1)
    """The column with the captions."""
    max_samples: int | None = Field(default=None, ge=1)
    """Take the first so many pictures only."""
    repeats: int = Field(default=1, ge=1)
    """How often an epoch has each picture, so that a small source is not lost beside a large one."""
    caption_prefix: str = ""
    """Put before every caption, as it is written here."""
    trigger_word: str | None = Field(default=None, min_length=1)
    """Put before every caption that does not have it, with a comma behind it."""


class PriorSpec(PlaceSpec):
    """Prior preservation (arXiv 2208.12242): one picture of the wider class is trained beside each picture of the subject."""

    source: str
    """The place of the prior pictures; their own captions, if they have any, are not read."""
    max_samples: int | None = Field(default=None, ge=1)
    """Take the first so many pictures only."""
    caption: str = Field(min_length=1)
    """The caption of all prior pictures."""
    weight: float = Field(default=1.0, ge=0)
    """The weight of the prior's loss beside the subject's."""


class HeldOutSpec(Part):
    """Pictures that are never trained on, and on which the validation loss is computed: exactly one of share, count, source."""

    share: float | None = Field(default=None, gt=0, lt=1)
    """About this share of the pictures, each chosen by the hash of its content: it stays out however the data grows."""
    count: int | None = Field(default=None, ge=1)
    """So many pictures: those whose hashes are the lowest."""
    source: str | None = None
    """A place of its own."""
    revision: str | None = "main"
    """The branch, tag or commit of an hf:// source; resolved to a commit and recorded."""
    config: str | None = Field(default=None, min_length=1)
    """The configuration (subset) of the data set at `source`."""
    split: str = Field(default="train", min_length=1)
    """The split of the data set at `source`, as validation."""
    image_column: str = Field(default="image", min_length=1)
    """The column with the pictures at `source`."""
    caption_column: str = Field(default="text", min_length=1)
    """The column with the captions at `source`."""
    max_samples: int | None = Field(default=None, ge=1)
    """Take the first so many pictures of `source` only."""


class DataSpec(Part):
    """The pictures and captions that are trained on."""

    source: str = Field(default="", json_schema_extra=without_default)
    """The place of the data: a `datasets` data set, an image folder, parquet, or webdataset shards."""
    sources: tuple[SourceSpec, ...] = ()
    """Several places in place of one; each has what is said here of a single one: revision, split, columns and so on."""
    revision: str | None = "main"
    """The branch, tag or commit of an hf:// source; resolved to a commit and recorded."""
    config: str | None = Field(default=None, min_length=1)
    """The configuration (subset) of the data set."""
    split: str = Field(default="train", min_length=1)
    """The split of the data set."""
    image_column: str = Field(default="image", min_length=1)
    """The column with the pictures."""
    caption_column: str = Field(default="text", min_length=1)
    """The column with the captions."""
    caption_prefix: str = ""
    """Put before every caption, as it is written here."""
    trigger_word: str | None = Field(default=None, min_length=1)
    """Put before every caption that does not have it, with a comma behind it."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """The share of samples that are trained with the empty caption."""
    max_samples: int | None = Field(default=None, ge=1)
    """Train on the first so many pictures only."""
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """The share of pictures that may be undecodable or without a caption before the run ends with exit 65."""
    resolution: Annotated[Resolution, BeforeValidator(square, json_schema_input_type=Side | Resolution)] = Resolution(
        width=512, height=512
    )
    """Pixels of a side, a multiple of 8, at least 64; or {width, height}."""
    buckets: BucketsSpec | None = None
    """Aspect-ratio buckets; null trains every picture at `resolution`."""
    crop: Literal["center", "random"] = "center"
    """Which part of a picture is kept where its shape is not the resolution's."""
    flip: bool = False
    """Flip every second picture, drawn at random, from left to right."""
    prior: PriorSpec | None = None
    """Prior preservation; `train.global_batch` counts the subject's pictures only."""
    held_out: HeldOutSpec | None = None
    """Pictures kept for the validation loss; null trains on all."""

"""Every place that a job's pictures come from, in one order: the numbers by which the data index tells them apart. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sdjob.spec.data import DataSpec, HeldOutSpec, PriorSpec, SourceSpec

Role = Literal["train", "prior", "held_out"]


@dataclass(frozen=True)
class DataSource:
    """One place, and how its pictures are read."""

    field: str
    """The part of the job file that it stands in, as `data.sources.1`."""

    role: Role
    source: str
    revision: str | None
    config: str | None
    split: str
    image_column: str
    caption_column: str | None
    """None: captions are not read."""

    max_samples: int | None
    repeats: int = 1
    caption_prefix: str = ""
    trigger_word: str | None = None
    caption: str | None = None
    """Of all its pictures, whatever they have."""

    @property
    def tells_as_found(self) -> bool:
        """Whether `captions` changes none."""
        return self.caption is None and not self.caption_prefix and self.trigger_word is None

    def captions(self, found: tuple[str, ...]) -> tuple[str, ...]:
        """As they are trained, of those that a picture has."""
        if self.caption is not None:
            return (self.caption,)
        return tuple(self._told(caption) for caption in found)

    def _told(self, caption: str) -> str:
        word = self.trigger_word
        has_it = word is None or re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE)
        return self.caption_prefix + (caption if has_it else f"{word}, {caption}")


def data_sources(data: DataSpec) -> tuple[DataSource, ...]:
    """Those that are trained on come first."""
    return (*_trained(data), *_prior(data.prior), *_held_out(data))


def sources_of(data: DataSpec, *, role: Role) -> tuple[int, ...]:
    """Their numbers."""
    return tuple(number for number, source in enumerate(data_sources(data)) if source.role == role)


def _trained(data: DataSpec) -> Iterator[DataSource]:
    if not data.sources:
        yield _read("data", data)
    for number, spec in enumerate(data.sources):
        yield _read(f"data.sources.{number}", spec)


def _read(field: str, spec: DataSpec | SourceSpec) -> DataSource:
    return DataSource(
        field,
        "train",
        **_place(spec),
        caption_column=spec.caption_column,
        repeats=spec.repeats if isinstance(spec, SourceSpec) else 1,
        caption_prefix=spec.caption_prefix,
        trigger_word=spec.trigger_word,
    )


def _prior(spec: PriorSpec | None) -> Iterator[DataSource]:
    if spec is not None:
        yield DataSource(
            "data.prior",
            "prior",
            **_place(spec),
            caption_column=None,
            caption=spec.caption,
        )


def _held_out(data: DataSpec) -> Iterator[DataSource]:
    """A place of its own alone; with the prefix and the word that the captions of a single source get."""
    spec: HeldOutSpec | None = data.held_out
    if spec is not None and spec.source is not None:
        yield DataSource(
            "data.held_out",
            "held_out",
            **_place(spec),
            caption_column=spec.caption_column,
            caption_prefix=data.caption_prefix,
            trigger_word=data.trigger_word,
        )


def _place(spec: DataSpec | SourceSpec | PriorSpec | HeldOutSpec) -> dict[str, Any]:
    """What is said alike of each."""
    return {name: getattr(spec, name) for name in ("source", "revision", "config", "split", "image_column", "max_samples")}


def prior_source(data: DataSpec) -> int | None:
    """The number of the prior pictures' source."""
    return None if data.prior is None else max(1, len(data.sources))

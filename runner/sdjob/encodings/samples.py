"""Samples of a step out of the shards, in place of pixels and text."""

from dataclasses import dataclass

from sdjob.data.samples import Chosen, SampleSource
from sdjob.encodings.reader import Arrays, Encodings


@dataclass(frozen=True)
class EncodedSample:
    chosen: Chosen
    picture: Arrays
    """`mean_CHW`, `log_variance_CHW`."""

    states: Arrays | None
    """`states_TD`, and of SDXL `pooled_P`; None where the text encoder is trained."""

    @property
    def caption(self) -> str:
        return self.chosen.caption

    @property
    def time_ids(self) -> tuple[int, ...]:
        return self.chosen.time_ids


@dataclass(frozen=True)
class EncodedSource:
    """The same choices as the source that reads pictures makes."""

    source: SampleSource
    encodings: Encodings

    def sample(self, step: int, index_in_batch: int, *, global_batch: int) -> EncodedSample:
        chosen = self.source.chosen(step, index_in_batch, global_batch=global_batch)
        return EncodedSample(
            chosen,
            picture=self.encodings.picture(chosen.number, target=chosen.target, flipped=chosen.flipped),
            states=self.encodings.caption(chosen.number, choice=chosen.caption_choice),
        )

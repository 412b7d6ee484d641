"""What each picture of the index is there for: to be trained on, to be a prior, or to be held out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdjob.core.errors import DataError
from sdjob.data.index import Index
from sdjob.spec.data import DataSpec, HeldOutSpec
from sdjob.spec.sources import data_sources, sources_of

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Roles:
    """Numbers of pictures in the index, in its order."""

    train: Numbers
    """A picture that is repeated stands here as often."""

    prior: Numbers
    held_out: Numbers

    @property
    def num_trained(self) -> int:
        """However often each is repeated."""
        return len(np.unique(self.train))


def num_of_sources(index: Index, *, numbers: Numbers) -> Mapping[int, int]:
    """How many of the pictures each source has; only those that have any."""
    counts = np.bincount(index.sources[numbers]).tolist()
    return {number: count for number, count in enumerate(counts) if count}


def only_caption(index: Index, *, numbers: Numbers) -> str | None:
    """What all of the pictures are called; None where any has another caption."""
    captions = (caption for number in numbers.tolist() for caption in index.entries[number].captions)
    first = next(captions, None)
    return first if all(caption == first for caption in captions) else None


def roles_of(index: Index, *, data: DataSpec) -> Roles:
    """Raises DataError where nothing is left to train on, or nothing is held out although it was asked for.

    What is held out is a matter of content: a copy of such a picture, under whatever name, is not trained on either.
    """
    own, prior, apart = (np.isin(index.sources, sources_of(data, role=role)) for role in ("train", "prior", "held_out"))
    if data.held_out is not None and data.held_out.source is None:
        apart = own & _chosen(index.content, own=own, spec=data.held_out)
    held_out = np.flatnonzero(apart)
    trained = np.flatnonzero(own & ~np.isin(index.content, index.content[held_out]) if len(held_out) else own)
    _require(trained, held_out, num_pictures=int(own.sum()), data=data)
    repeats = np.array([source.repeats for source in data_sources(data)])
    return Roles(np.repeat(trained, repeats[index.sources[trained]]), np.flatnonzero(prior), held_out)


def _chosen(content: npt.NDArray[np.uint64], *, own: npt.NDArray[np.bool_], spec: HeldOutSpec) -> npt.NDArray[np.bool_]:
    """A sha256 is a fair draw, the same in every run and beside whatever other pictures."""
    if spec.share is not None:
        return content < np.uint64(spec.share * 2**64)
    assert spec.count is not None, "a valid job has one of the three"
    return np.isin(content, np.unique(content[own])[: spec.count])


def _require(trained: Numbers, held_out: Numbers, *, num_pictures: int, data: DataSpec) -> None:
    if data.held_out is not None and not len(held_out):
        raise DataError(
            f"none of {num_pictures} pictures is held out by a share of {data.held_out.share:g}.",
            where="data.held_out",
            next_step="Raise the share, or set data.held_out.count.",
        )
    if not len(trained):
        raise DataError(
            f"nothing is left to train on: all of {num_pictures} pictures are held out.",
            where="data.held_out",
            next_step="Hold out fewer.",
        )

"""Samples: what a step trains on, each a pure function of (index, settings, seed, step, place in the global batch)."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdjob.core.errors import DataError, StorageError
from sdjob.core.retry import Backoff
from sdjob.core.streams import stream
from sdjob.data.crops import Crop, center_crop, cropped, random_crop
from sdjob.data.entries import Entry
from sdjob.data.images import PictureError, decode, pixels_CHW
from sdjob.data.index import Index
from sdjob.data.order import picture_at
from sdjob.data.reading import READ_AGAIN, FileGoneError, read_bytes
from sdjob.spec.data import DataSpec


@dataclass(frozen=True)
class Sample:
    id: str
    caption: str
    """Empty where it was dropped."""

    pixels_CHW: npt.NDArray[np.float32]
    """RGB in [-1, 1], of exactly the job's resolution."""

    original_width: int
    original_height: int
    crop: Crop
    """Before the flip: the window's left side in the flipped picture is scaled_width - width - left."""

    flipped: bool


@dataclass(frozen=True)
class SampleSource:
    """Draws samples; keeps nothing between two of them, so any number of threads may call it."""

    index: Index
    folder: Path
    data: DataSpec
    seed: int
    backoff: Backoff = field(default=READ_AGAIN)

    def sample(self, step: int, index_in_batch: int, *, global_batch: int) -> Sample:
        """Raises StorageError where the picture cannot be read, DataError where it is not the one that was scanned."""
        position = step * global_batch + index_in_batch
        entry = self.index.entries[picture_at(position, num_pictures=len(self.index), seed=self.seed)]
        picture = scanned_picture(entry, folder=self.folder, backoff=self.backoff)
        crop = self._crop(entry, step, index_in_batch)
        flipped = self.data.flip and self._uniform("flip", step, index_in_batch) < 0.5
        return Sample(
            id=entry.id,
            caption=self._caption(entry, step, index_in_batch),
            pixels_CHW=pixels_CHW(cropped(picture, crop=crop, flipped=flipped)),
            original_width=entry.width,
            original_height=entry.height,
            crop=crop,
            flipped=flipped,
        )

    def _crop(self, entry: Entry, step: int, index_in_batch: int) -> Crop:
        width, height = self.data.resolution.width, self.data.resolution.height
        if self.data.crop == "center":
            return center_crop(width=entry.width, height=entry.height, target_width=width, target_height=height)
        across, down = stream(self.seed, "crop", step, index_in_batch).random(2).tolist()
        return random_crop(
            width=entry.width, height=entry.height, target_width=width, target_height=height, across=across, down=down
        )

    def _caption(self, entry: Entry, step: int, index_in_batch: int) -> str:
        if self._uniform("caption_dropout", step, index_in_batch) < self.data.caption_dropout:
            return ""
        choice = stream(self.seed, "caption", step, index_in_batch).integers(len(entry.captions))
        return entry.captions[choice]

    def _uniform(self, name: str, step: int, index_in_batch: int) -> float:
        return float(stream(self.seed, name, step, index_in_batch).random())


def scanned_picture(entry: Entry, *, folder: Path, backoff: Backoff = READ_AGAIN) -> Image.Image:
    """The picture of an entry, with the bytes that were scanned or not at all: no other picture ever takes its place."""
    path = folder / entry.id
    try:
        data = read_bytes(path, backoff=backoff)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            backoff.wait(0)
            data = read_bytes(path, backoff=backoff)
    except FileGoneError as error:
        raise StorageError("was there when the pictures were scanned, and is gone.", where=str(path)) from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DataError(
            "has changed since the pictures were scanned.",
            where=str(path),
            next_step="Put the old file back, or start a new run with the new one.",
        )
    return _decoded(data, path=path)


def _decoded(data: bytes, *, path: Path) -> Image.Image:
    try:
        return decode(data)
    except PictureError as error:
        raise DataError(f"could be decoded when it was scanned, but now {error.what}", where=str(path)) from error

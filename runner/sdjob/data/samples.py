"""Samples: what a step trains on, each a pure function of (index, settings, seed, step, place in the global batch)."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdjob.core.errors import DataError, StorageError
from sdjob.core.retry import Backoff
from sdjob.core.streams import stream
from sdjob.data.batch_order import BatchOrder, order_of
from sdjob.data.buckets import TargetSize
from sdjob.data.crops import Crop, cropped, random_crop
from sdjob.data.entries import Entry
from sdjob.data.images import PictureError, decode, pixels_CHW
from sdjob.data.index import Index
from sdjob.data.reading import READ_AGAIN, FileGoneError, read_bytes
from sdjob.data.roles import Roles, roles_of
from sdjob.data.targets import settled_crop
from sdjob.spec.data import DataSpec


@dataclass(frozen=True)
class Chosen:
    """What is trained on at a place of a step, before anything is read."""

    number: int
    """Of the picture in the index."""

    entry: Entry
    caption_choice: int | None
    """Which of the picture's captions; None: it was dropped, and the empty one takes its place."""

    crop: Crop
    flipped: bool

    @property
    def target(self) -> TargetSize:
        return TargetSize(self.crop.width, self.crop.height)

    @property
    def caption(self) -> str:
        return "" if self.caption_choice is None else self.entry.captions[self.caption_choice]

    @property
    def time_ids(self) -> tuple[int, ...]:
        return time_ids(width=self.entry.width, height=self.entry.height, crop=self.crop, flipped=self.flipped)


@dataclass(frozen=True)
class Sample:
    id: str
    caption: str
    """Empty where it was dropped."""

    pixels_CHW: npt.NDArray[np.float32]
    """RGB in [-1, 1], of exactly the target size: of its batch, and of the crop."""

    original_width: int
    original_height: int
    crop: Crop
    """Before the flip: the window's left side in the flipped picture is scaled_width - width - left."""

    flipped: bool

    @property
    def time_ids(self) -> tuple[int, ...]:
        return time_ids(width=self.original_width, height=self.original_height, crop=self.crop, flipped=self.flipped)


def time_ids(*, width: int, height: int, crop: Crop, flipped: bool) -> tuple[int, ...]:
    """What SDXL is told of a picture (arXiv 2307.01952, section 2.2): height and width before scaling, top and left of the
    window in the scaled picture as it is shown, mirrored or not, height and width of the window.

    As https://github.com/huggingface/diffusers/blob/main/examples/text_to_image/train_text_to_image_sdxl.py counts, which
    flips before it crops.
    """
    left = crop.scaled_width - crop.width - crop.left if flipped else crop.left
    return height, width, crop.top, left, crop.height, crop.width


@dataclass(frozen=True)
class SampleSource:
    """Draws samples; what it keeps between two of them changes none, so any number of threads may call it."""

    index: Index
    folders: tuple[Path, ...]
    """Of each source the one that its pictures lie in."""

    data: DataSpec
    seed: int
    backoff: Backoff = field(default=READ_AGAIN)
    _orders: dict[int, BatchOrder] = field(default_factory=dict[int, BatchOrder], repr=False, compare=False)

    @cached_property
    def roles(self) -> Roles:
        return roles_of(self.index, data=self.data)

    def order(self, global_batch: int) -> BatchOrder:
        if global_batch not in self._orders:
            settings = {"data": self.data, "seed": self.seed, "global_batch": global_batch}
            self._orders[global_batch] = order_of(self.index, roles=self.roles, **settings)
        return self._orders[global_batch]

    def sample(self, step: int, index_in_batch: int, *, global_batch: int) -> Sample:
        """Raises StorageError where the picture cannot be read, DataError where it is not the one that was scanned."""
        chosen = self.chosen(step, index_in_batch, global_batch=global_batch)
        entry = chosen.entry
        return Sample(
            id=entry.id,
            caption=chosen.caption,
            pixels_CHW=self.pixels(entry, crop=chosen.crop, flipped=chosen.flipped),
            original_width=entry.width,
            original_height=entry.height,
            crop=chosen.crop,
            flipped=chosen.flipped,
        )

    def chosen(self, step: int, index_in_batch: int, *, global_batch: int) -> Chosen:
        """Places from `global_batch` on are those of prior pictures."""
        order = self.order(global_batch)
        number = order.picture(step, index_in_batch)
        entry = self.index.entries[number]
        return Chosen(
            number,
            entry,
            caption_choice=self._caption(entry, step, index_in_batch),
            crop=self._crop(entry, order.size(step), step, index_in_batch),
            flipped=self.data.flip and self._uniform("flip", step, index_in_batch) < 0.5,
        )

    def pixels(self, entry: Entry, *, crop: Crop, flipped: bool) -> npt.NDArray[np.float32]:
        """(C, H, W) of the window. Raises as `sample` does."""
        picture = scanned_picture(entry, folder=self.folders[entry.source], backoff=self.backoff)
        return pixels_CHW(cropped(picture, crop=crop, flipped=flipped))

    def _crop(self, entry: Entry, target: TargetSize, step: int, index_in_batch: int) -> Crop:
        if (settled := settled_crop(entry, target=target, data=self.data)) is not None:
            return settled
        shape = {"width": entry.width, "height": entry.height, "target_width": target.width, "target_height": target.height}
        across, down = stream(self.seed, "crop", step, index_in_batch).random(2).tolist()
        return random_crop(**shape, across=across, down=down)

    def _caption(self, entry: Entry, step: int, index_in_batch: int) -> int | None:
        if self._uniform("caption_dropout", step, index_in_batch) < self.data.caption_dropout:
            return None
        return int(stream(self.seed, "caption", step, index_in_batch).integers(len(entry.captions)))

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

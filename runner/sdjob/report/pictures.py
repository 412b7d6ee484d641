"""Validation pictures, chosen and made small enough to lie in the page itself."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sdjob.core.errors import SdjobError
from sdjob.report.series import evenly
from sdjob.store.base import ObjectStore
from sdjob.track.row import Picture

READERS = 8
MOST_STEPS, MOST_PROMPTS, MOST_IMAGES = 24, 8, 4
MOST_BYTES = 2_500_000  # of all pictures together, as text in the page
SIZES = ((320, 85), (256, 80), (192, 75), (128, 70), (96, 60))  # side in px and WebP's quality, best first
LARGEST_PX = 64_000_000  # of a picture that is decoded at all


@dataclass(frozen=True)
class Drawn:
    step: int
    prompt_number: int
    prompt: str
    uri: str
    """data:image/webp;base64,..."""

    width: int
    height: int


@dataclass(frozen=True)
class Album:
    drawn: tuple[Drawn, ...]
    num_steps: int
    """Of all that were drawn; the page may have fewer."""

    num_unreadable: int

    def fields(self) -> dict[str, Any]:
        """Rows are prompts, by their numbers; a prompt whose words changed has those of the last step."""
        prompts = {picture.prompt_number: picture.prompt for picture in self.drawn}
        steps = sorted({picture.step for picture in self.drawn})
        cells = {
            str(step): {str(number): self._cell(step, number) for number in sorted(prompts) if self._cell(step, number)}
            for step in steps
        }
        return {"prompts": {str(number): prompts[number] for number in sorted(prompts)}, "steps": steps, "cells": cells}

    def _cell(self, step: int, number: int) -> list[dict[str, Any]]:
        found = (picture for picture in self.drawn if (picture.step, picture.prompt_number) == (step, number))
        return [{"src": picture.uri, "w": picture.width, "h": picture.height} for picture in found]


def album(store: ObjectStore, *, pictures: Mapping[int, Sequence[Picture]]) -> Album:
    chosen = [(step, picture) for step in evenly(sorted(pictures), most=MOST_STEPS) for picture in few(pictures[step])]
    share_bytes = MOST_BYTES // max(1, len(chosen))

    def made(one: tuple[int, Picture]) -> Drawn | None:
        return drawn(store, step=one[0], picture=one[1], most_bytes=share_bytes)

    with ThreadPoolExecutor(READERS, thread_name_prefix="pictures") as pool:
        found = list(pool.map(made, chosen))
    readable = tuple(picture for picture in found if picture is not None)
    return Album(readable, num_steps=len(pictures), num_unreadable=len(found) - len(readable))


def few(pictures: Sequence[Picture]) -> list[Picture]:
    return [p for p in pictures if number_of(p) < MOST_PROMPTS and int(p.name.partition("-")[2]) < MOST_IMAGES]


def number_of(picture: Picture) -> int:
    return int(picture.name.partition("-")[0])


def drawn(store: ObjectStore, *, step: int, picture: Picture, most_bytes: int) -> Drawn | None:
    """None for a picture that cannot be read or is none: the others are worth a page without it."""
    try:
        with Image.open(io.BytesIO(store.read(picture.key)), formats=["PNG"]) as opened:
            if opened.width * opened.height > LARGEST_PX:
                return None
            image = opened.convert("RGB")
    except (SdjobError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small, data = re_encoded(image, most_bytes=most_bytes)
    uri = "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
    return Drawn(step, number_of(picture), picture.prompt, uri, small.width, small.height)


def re_encoded(image: Image.Image, *, most_bytes: int) -> tuple[Image.Image, bytes]:
    """The best of SIZES that fits; the last one if none does. Nothing of the file but its pixels goes on."""
    small, data = image, b""
    for side, quality in SIZES:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, format="WEBP", quality=quality, method=4)
        data = out.getvalue()
        if len(data) * 4 / 3 <= most_bytes:
            break
    return small, data

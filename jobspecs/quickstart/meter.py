"""Reads a quickstart picture by its pixels: background, colour, shape and style. No classifier is needed.

The background is the median of the border, the colour the median of the centre, each the nearest of both palettes;
the shape is the template that overlaps best with the mask of pixels nearer to the colour than to the background.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shapes import COLOURS, SHAPES, SIZE_PX, Scene, Style, draw, styled

BORDER_PX = 4
CENTRE_PX = 4  # half the side of the window; the arms of the smallest cross are wider
MASK_PX = 32


@dataclass(frozen=True)
class Reading:
    shape: str
    colour: str
    background: str
    colour_style: Style
    background_style: Style

    @property
    def style(self) -> Style:
        """`pastel` only where both colours are."""
        return "pastel" if self.colour_style == self.background_style == "pastel" else "plain"


def nearest_colour(rgb: NDArray[np.float64]) -> tuple[str, Style]:
    styles: tuple[Style, ...] = ("plain", "pastel")
    candidates = [(name, style) for style in styles for name in COLOURS]
    palette = np.array([styled(COLOURS[name], style=style) for name, style in candidates], dtype=np.float64)
    return candidates[int(np.argmin(((palette - rgb) ** 2).sum(axis=1)))]


def fitted_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask cut to its bounding box and stretched to MASK_PX x MASK_PX; empty stays empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((MASK_PX, MASK_PX), dtype=bool)
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(Image.fromarray(cut).resize((MASK_PX, MASK_PX), Image.Resampling.NEAREST))


def shape_mask(
    pixels_HWC: NDArray[np.float64], *, colour: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.bool_]:
    to_colour = ((pixels_HWC - colour) ** 2).sum(axis=2)
    return to_colour < ((pixels_HWC - background) ** 2).sum(axis=2)


@cache
def templates() -> dict[str, NDArray[np.bool_]]:
    black_on_yellow = {shape: draw(Scene(shape, "black", "yellow")) for shape in SHAPES}
    return {shape: fitted_mask(np.asarray(image).sum(axis=2) < 300) for shape, image in black_on_yellow.items()}


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def read(image: Image.Image) -> Reading:
    pixels = np.asarray(image.convert("RGB").resize((SIZE_PX, SIZE_PX)), dtype=np.float64)
    border = np.ones((SIZE_PX, SIZE_PX), dtype=bool)
    border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    middle = slice(SIZE_PX // 2 - CENTRE_PX, SIZE_PX // 2 + CENTRE_PX)
    background_rgb = np.median(pixels[border], axis=0)
    colour_rgb = np.median(pixels[middle, middle].reshape(-1, 3), axis=0)
    mask = fitted_mask(shape_mask(pixels, colour=colour_rgb, background=background_rgb))
    shape = max(SHAPES, key=lambda name: overlap(mask, templates()[name]))
    colour, colour_style = nearest_colour(colour_rgb)
    background, background_style = nearest_colour(background_rgb)
    return Reading(shape, colour, background, colour_style, background_style)

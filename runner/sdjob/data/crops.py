"""Where a sample lies in its picture: pure geometry, and the one resampling that follows it.

The picture is scaled, keeping its shape, until it just covers the target; what overhangs on one side is cropped. Scaling
enlarges as well: every sample has exactly the target's size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Crop:
    """A window of `width` x `height` pixels in the picture scaled to `scaled_width` x `scaled_height`; left before a flip."""

    scaled_width: int
    scaled_height: int
    left: int
    top: int
    width: int
    height: int


def scaled_size(*, width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    """The size at which a picture just covers the target, as (width, height).

    The side that decides becomes exactly the target's; the other one is rounded down, as torchvision's Resize does, but
    never below the target. In integers, so that no machine rounds differently.
    """
    if target_width * height >= target_height * width:  # the picture is narrower in shape than the target
        return target_width, max(target_height, height * target_width // width)
    return max(target_width, width * target_height // height), target_height


def center_crop(*, width: int, height: int, target_width: int, target_height: int) -> Crop:
    """The middle; half pixels go to the even side, as torchvision's CenterCrop does with Python's `round`."""
    scaled = scaled_size(width=width, height=height, target_width=target_width, target_height=target_height)
    left, top = round((scaled[0] - target_width) / 2), round((scaled[1] - target_height) / 2)
    return Crop(*scaled, left=left, top=top, width=target_width, height=target_height)


def scaled_sizes(widths: Integers, heights: Integers, *, target_width: int, target_height: int) -> tuple[Integers, Integers]:
    """`scaled_size` of many pictures: their widths and their heights."""
    width_N, height_N = widths.astype(np.int64), heights.astype(np.int64)
    narrower_N = target_width * height_N >= target_height * width_N
    across_N = np.where(narrower_N, target_width, np.maximum(target_width, width_N * target_height // height_N))
    down_N = np.where(narrower_N, np.maximum(target_height, height_N * target_width // width_N), target_height)
    return across_N, down_N


def center_crops(widths: Integers, heights: Integers, *, target_width: int, target_height: int) -> tuple[Integers, ...]:
    """`center_crop` of many pictures: scaled widths and heights, lefts and tops."""
    across_N, down_N = scaled_sizes(widths, heights, target_width=target_width, target_height=target_height)
    # rint, as `round`, takes the even side; halves of such numbers are exact.
    left_N, top_N = np.rint((across_N - target_width) / 2), np.rint((down_N - target_height) / 2)
    return across_N, down_N, left_N.astype(np.int64), top_N.astype(np.int64)


def random_crop(*, width: int, height: int, target_width: int, target_height: int, across: float, down: float) -> Crop:
    """Every window equally likely, from two uniform draws in [0, 1)."""
    scaled = scaled_size(width=width, height=height, target_width=target_width, target_height=target_height)
    left = int(across * (scaled[0] - target_width + 1))
    top = int(down * (scaled[1] - target_height + 1))
    return Crop(*scaled, left=left, top=top, width=target_width, height=target_height)


def cropped(picture: Image.Image, *, crop: Crop, flipped: bool) -> Image.Image:
    """The window's pixels by Lanczos, then mirrored left to right where `flipped`.

    The window is resampled out of the original, neighbours beyond its edge included: the pixels of scaling everything and
    cropping then, to rounding and to which axis Pillow takes first (where Lanczos overshoots black or white, that shows),
    without ever holding the scaled picture, which for a strip of 100000 x 1 pixels at 512 would be 98 GiB.
    """
    across, down = picture.width / crop.scaled_width, picture.height / crop.scaled_height
    box = (
        crop.left * across,
        crop.top * down,
        min((crop.left + crop.width) * across, picture.width),  # rounding may pass the edge by an ulp, which Pillow refuses
        min((crop.top + crop.height) * down, picture.height),
    )
    window = picture.resize((crop.width, crop.height), Image.Resampling.LANCZOS, box=box)
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else window

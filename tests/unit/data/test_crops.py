"""The geometry of samples, for any picture and any target."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdjob.data.crops import Crop, center_crop, center_crops, cropped, random_crop, scaled_size

SIDES = st.integers(1, 20_000)
TARGETS = st.integers(8, 256).map(lambda eighths: eighths * 8)
UNIFORMS = st.floats(0, 1, exclude_max=True)


def is_inside(crop: Crop) -> bool:
    return 0 <= crop.left <= crop.scaled_width - crop.width and 0 <= crop.top <= crop.scaled_height - crop.height


@settings(deadline=None)
@given(width=SIDES, height=SIDES, target_width=TARGETS, target_height=TARGETS)
def test_the_picture_covers_the_target_and_no_more(width: int, height: int, target_width: int, target_height: int):
    scaled = scaled_size(width=width, height=height, target_width=target_width, target_height=target_height)
    assert scaled[0] >= target_width
    assert scaled[1] >= target_height
    assert scaled[0] == target_width or scaled[1] == target_height
    # The other side keeps the shape, to the pixel that is rounded down.
    scale = max(target_width / width, target_height / height)
    assert scaled[0] == pytest.approx(width * scale, abs=1.001)
    assert scaled[1] == pytest.approx(height * scale, abs=1.001)


@settings(deadline=None)
@given(size=st.tuples(SIDES, SIDES), target=st.tuples(TARGETS, TARGETS), across=UNIFORMS, down=UNIFORMS)
def test_crops_lie_inside(size: tuple[int, int], target: tuple[int, int], across: float, down: float):
    sizes = {"width": size[0], "height": size[1], "target_width": target[0], "target_height": target[1]}
    for crop in (center_crop(**sizes), random_crop(**sizes, across=across, down=down)):
        assert (crop.width, crop.height) == target
        assert is_inside(crop)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, target_width=TARGETS, target_height=TARGETS)
def test_the_centre_is_the_centre(width: int, height: int, target_width: int, target_height: int):
    crop = center_crop(width=width, height=height, target_width=target_width, target_height=target_height)
    assert abs(crop.left - (crop.scaled_width - crop.width - crop.left)) <= 1
    assert abs(crop.top - (crop.scaled_height - crop.height - crop.top)) <= 1


@settings(deadline=None)
@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=20), target=st.tuples(TARGETS, TARGETS))
def test_many_at_once_are_cropped_as_each_alone(sizes: list[tuple[int, int]], target: tuple[int, int]):
    shape = {"target_width": target[0], "target_height": target[1]}
    widths, heights = np.array(sizes, np.int32).T
    expected = [center_crop(width=width, height=height, **shape) for width, height in sizes]
    found = zip(*center_crops(widths, heights, **shape), strict=True)
    assert [Crop(*map(int, window), *target) for window in found] == expected


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((512, 512), (512, 512), Crop(512, 512, 0, 0, 512, 512)),
        ((1000, 500), (512, 512), Crop(1024, 512, 256, 0, 512, 512)),
        ((500, 1000), (512, 512), Crop(512, 1024, 0, 256, 512, 512)),
        ((64, 48), (512, 512), Crop(682, 512, 85, 0, 512, 512)),  # 682.67 is rounded down
        ((400, 400), (768, 384), Crop(768, 768, 0, 192, 768, 384)),
        ((1000, 100), (384, 768), Crop(7680, 768, 3648, 0, 384, 768)),
        ((103, 100), (100, 100), Crop(103, 100, 2, 0, 100, 100)),  # 1.5 goes to the even 2
        ((101, 100), (100, 100), Crop(101, 100, 0, 0, 100, 100)),  # 0.5 goes to the even 0
        ((1, 1), (64, 64), Crop(64, 64, 0, 0, 64, 64)),
    ],
)
def test_known_crops(size: tuple[int, int], target: tuple[int, int], expected: Crop):
    crop = center_crop(width=size[0], height=size[1], target_width=target[0], target_height=target[1])
    assert crop == expected


def test_random_crops_reach_both_ends():
    sizes = {"width": 300, "height": 100, "target_width": 100, "target_height": 100}
    lefts = [random_crop(**sizes, across=across, down=0.0).left for across in (0.0, 0.5, np.nextafter(1.0, 0.0))]
    assert lefts == [0, 100, 200]


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), across=UNIFORMS, down=UNIFORMS, flipped=st.booleans())
def test_pixels_are_those_of_the_scaled_picture(width: int, height: int, across: float, down: float, flipped: bool):
    # Mid-grey noise: where Lanczos overshoots black or white, it matters which axis is resampled first.
    noise = np.random.default_rng([width, height]).integers(100, 156, size=(height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    crop = random_crop(width=width, height=height, target_width=24, target_height=40, across=across, down=down)
    scaled = picture.resize((crop.scaled_width, crop.scaled_height), Image.Resampling.LANCZOS)
    expected = np.asarray(scaled.crop((crop.left, crop.top, crop.left + 24, crop.top + 40))).astype(int)
    found = np.asarray(cropped(picture, crop=crop, flipped=flipped)).astype(int)
    assert found.shape == (40, 24, 3)
    assert np.abs((found[:, ::-1] if flipped else found) - expected).max() <= 2


def test_the_same_size_is_not_touched():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8))
    crop = center_crop(width=64, height=64, target_width=64, target_height=64)
    assert cropped(picture, crop=crop, flipped=False).tobytes() == picture.tobytes()


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000)])
def test_a_strip_needs_no_memory_for_its_scaled_length(size: tuple[int, int]):
    crop = center_crop(width=size[0], height=size[1], target_width=512, target_height=512)
    assert max(crop.scaled_width, crop.scaled_height) == 51_200_000
    window = cropped(Image.new("RGB", size, "blue"), crop=crop, flipped=True)
    assert (window.size, window.getpixel((0, 0))) == ((512, 512), (0, 0, 255))

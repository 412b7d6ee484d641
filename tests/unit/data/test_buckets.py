"""The list of sizes, and the size of each picture."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.data.buckets import TargetSize, assigned, bucket_sizes, cropped_share, cropped_share_of, nearest_size, num_of_each
from sdjob.data.crops import center_crop
from sdjob.spec.data import DataSpec

# What kohya's sd-scripts prints for its defaults (resolution 512, 256 to 1024, step 64).
KOHYA_512 = [
    (256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576), (512, 512),
    (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256),
]  # fmt: skip


def spec(resolution: object = 512, *, step: int = 64, least: int = 384, most: int = 768) -> DataSpec:
    buckets = {"step": step, "min": least, "max": most}
    return DataSpec.model_validate({"source": "pictures", "resolution": resolution, "buckets": buckets})


def pairs(data: DataSpec) -> list[tuple[int, int]]:
    return [(size.width, size.height) for size in bucket_sizes(data)]


class TestSizes:
    def test_those_of_kohyas_scripts(self):
        assert pairs(spec(least=256, most=1024)) == KOHYA_512

    def test_the_defaults(self):
        assert pairs(spec()) == [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]

    def test_without_buckets_there_is_one(self):
        data = DataSpec.model_validate({"source": "pictures", "resolution": {"width": 96, "height": 64}})
        assert bucket_sizes(data) == (TargetSize(96, 64),)

    @given(st.integers(0, 64), st.sampled_from([8, 16, 64]), st.integers(1, 5), st.integers(0, 30))
    def test_areas_are_within_the_resolutions(self, eighths: int, step: int, least: int, more: int):
        resolution = 64 * least + 8 * eighths
        data = spec(resolution, step=step, least=64 * least, most=64 * math.ceil(resolution / 64) + step * more)
        for size in bucket_sizes(data):
            assert size.width * size.height <= resolution**2
            assert size.width % step == size.height % step == 0
        assert {(height, width) for width, height in pairs(data)} == set(pairs(data))


class TestAssignment:
    @pytest.mark.parametrize(
        ("width", "height", "target"),
        [
            (512, 512, (512, 512)),
            (1000, 600, (640, 384)),
            (600, 1000, (384, 640)),
            (4000, 3000, (576, 448)),
            (9, 900, (384, 640)),
        ],
    )
    def test_the_nearest_shape(self, width: int, height: int, target: tuple[int, int]):
        assert nearest_size(width=width, height=height, data=spec()) == TargetSize(*target)

    @given(st.integers(1, 5000), st.integers(1, 5000))
    def test_no_other_size_would_lose_less(self, width: int, height: int):
        data = spec(least=256, most=1024)

        def kept(size: TargetSize) -> float:
            """Of the picture, by the crop itself, whose scaled sides are whole pixels."""
            crop = center_crop(width=width, height=height, target_width=size.width, target_height=size.height)
            return crop.width * crop.height / (crop.scaled_width * crop.scaled_height)

        chosen = nearest_size(width=width, height=height, data=data)
        assert kept(chosen) >= max(map(kept, bucket_sizes(data))) - 0.005

    def test_many_at_once_are_as_each_alone(self):
        rng = np.random.default_rng(0)
        widths, heights = rng.integers(1, 4000, 500), rng.integers(1, 4000, 500)
        numbers = assigned(widths, heights, data=spec())
        alone = [nearest_size(width=int(w), height=int(h), data=spec()) for w, h in zip(widths, heights, strict=True)]
        assert [bucket_sizes(spec())[number] for number in numbers] == alone
        assert sum(num_of_each(numbers, sizes=bucket_sizes(spec())).values()) == 500


class TestCroppedShare:
    def test_of_one_picture(self):
        # 1000 x 500 in 512 x 512: half of it is cut off; in 640 x 384 it is scaled to 768 x 384, of which 640 stay.
        wide = (np.array([1000]), np.array([500]))
        assert cropped_share(*wide, target=TargetSize(512, 512)) == 0.5
        assert cropped_share(*wide, target=TargetSize(640, 384)) == pytest.approx(1 - 640 / 768)

    def test_buckets_keep_what_squares_cut_off(self):
        """Photos as cameras and phones make them: squares lose 0.29 of their pixels, the default buckets 0.06."""
        shapes = [(4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (1, 1)]
        widths, heights = (np.array([shape[side] * 300 for shape in shapes]) for side in (0, 1))
        sizes = bucket_sizes(spec())
        numbers = assigned(widths, heights, data=spec())
        assert cropped_share(widths, heights, target=TargetSize(512, 512)) == pytest.approx(0.2917, abs=1e-3)
        assert cropped_share_of(widths, heights, numbers=numbers, sizes=sizes) == pytest.approx(0.0566, abs=1e-3)

"""Every mode and format that people have, drawn here; what cannot be a picture is an error with a sentence."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdjob.core.errors import DataError, StorageError
from sdjob.data.images import MOST_PIXELS, ORIENTATION_TAG, PictureError, decode, pixels_CHW


def saved(picture: Image.Image, extension: str = "PNG", **options: object) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, format=extension, **options)
    return stored.getvalue()


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = columns * 255 // (width - 1), rows * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.uint8))


def first_pixel(data: bytes) -> tuple[int, ...]:
    picture = decode(data)
    assert picture.mode == "RGB"
    return picture.getpixel((0, 0))


def farthest(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


class TestFormats:
    @pytest.mark.parametrize(
        ("extension", "options", "tolerance"),
        [
            ("PNG", {}, 0),
            ("BMP", {}, 0),
            ("PPM", {}, 0),
            ("TIFF", {}, 0),
            ("TIFF", {"compression": "tiff_lzw"}, 0),
            ("WEBP", {"lossless": True}, 0),
            ("WEBP", {"quality": 95}, 24),
            ("AVIF", {"quality": 95}, 24),
            ("JPEG", {"quality": 95, "subsampling": 0}, 12),
            ("JPEG", {"quality": 95, "progressive": True}, 24),
        ],
    )
    def test_colours_survive(self, extension: str, options: dict[str, object], tolerance: int):
        decoded = decode(saved(gradient(), extension, **options))
        assert (decoded.mode, decoded.size) == ("RGB", (24, 16))
        assert farthest(decoded, gradient()) <= tolerance

    def test_a_path_and_its_bytes_are_the_same(self, tmp_path: Path):
        path = tmp_path / "a.png"
        path.write_bytes(saved(gradient()))
        assert decode(path).tobytes() == decode(path.read_bytes()).tobytes()

    def test_the_extension_does_not_matter(self, tmp_path: Path):
        (tmp_path / "a.png").write_bytes(saved(gradient(), "BMP"))
        assert farthest(decode(tmp_path / "a.png"), gradient()) == 0

    @pytest.mark.parametrize("extension", ["GIF", "WEBP", "PNG"])
    def test_first_frame_of_an_animation(self, extension: str):
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if extension == "WEBP" else {}
        data = saved(frames[0], extension, save_all=True, append_images=frames[1:], duration=100, **options)
        assert first_pixel(data) == (255, 0, 0)

    def test_first_picture_of_a_phone_that_stores_two(self):
        data = saved(gradient(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=95, subsampling=0)
        assert farthest(decode(data), gradient()) <= 12

    def test_first_page_of_a_tiff(self):
        assert first_pixel(saved(gradient(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])) == (0, 0, 90)


class TestModes:
    def test_grey(self):
        assert first_pixel(saved(Image.new("L", (5, 5), 77))) == (77, 77, 77)

    @pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 255)])
    def test_one_bit(self, value: int, expected: int):
        assert first_pixel(saved(Image.new("1", (5, 5), value))) == (expected, expected, expected)

    @pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32768, 128), (65406, 254), (65407, 255), (65535, 255)])
    @pytest.mark.parametrize("extension", ["PNG", "TIFF"])
    def test_16_bits_are_scaled_not_cut_off(self, extension: str, value: int, expected: int):
        data = saved(Image.fromarray(np.full((5, 5), value, dtype=np.uint16)), extension)
        assert first_pixel(data) == (expected, expected, expected)

    def test_16_bit_big_endian_tiff(self):
        with Image.open(io.BytesIO(saved(Image.new("I;16B", (5, 5), 32768), "TIFF"))) as stored:
            assert stored.mode == "I;16B", "else this test shows nothing"
        assert first_pixel(saved(Image.new("I;16B", (5, 5), 32768), "TIFF")) == (128, 128, 128)

    def test_16_bit_pgm(self):
        assert first_pixel(b"P5 2 1 65535\n" + struct.pack(">HH", 32768, 65535)) == (128, 128, 128)

    def test_32_bit_grey_is_refused_beyond_16_bits(self):
        with pytest.raises(PictureError, match="32-bit pixels"):
            decode(saved(Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)), "TIFF"))

    def test_floating_point_is_refused(self):
        with pytest.raises(PictureError, match="floating-point"):
            decode(saved(Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)), "TIFF"))

    @pytest.mark.parametrize(
        ("mode", "colour", "expected"),
        [
            ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
            ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
            ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
            ("LA", (10, 0), (255, 255, 255)),
            ("LA", (10, 255), (10, 10, 10)),
        ],
    )
    def test_transparency_is_laid_on_white(self, mode: str, colour: tuple[int, ...], expected: tuple[int, ...]):
        assert first_pixel(saved(Image.new(mode, (5, 5), colour))) == expected

    def test_palette(self):
        picture = gradient().quantize(64)
        assert farthest(decode(saved(picture)), picture.convert("RGB")) == 0

    @pytest.mark.parametrize(("extension", "transparency"), [("PNG", 0), ("PNG", b"\x00\xff"), ("GIF", 0)])
    def test_palette_with_transparency(self, extension: str, transparency: int | bytes):
        picture = Image.new("P", (5, 5), 0)
        picture.putpalette([200, 0, 0, 0, 0, 200])
        picture.putpixel((4, 4), 1)
        decoded = decode(saved(picture, extension, transparency=transparency))
        assert decoded.getpixel((0, 0)) == (255, 255, 255)
        assert decoded.getpixel((4, 4)) == (0, 0, 200)

    def test_palette_with_half_transparent_colours(self):
        picture = Image.new("P", (5, 5), 0)
        picture.putpalette([0, 0, 0])
        assert first_pixel(saved(picture, transparency=b"\x33")) == (204, 204, 204)

    def test_a_colour_declared_transparent(self):
        data = saved(Image.new("RGB", (5, 5), (1, 2, 3)), transparency=(1, 2, 3))
        assert first_pixel(data) == (255, 255, 255)

    def test_a_grey_declared_transparent(self):
        assert first_pixel(saved(Image.new("L", (5, 5), 7), transparency=7)) == (255, 255, 255)

    @pytest.mark.parametrize(
        ("ink", "expected"),
        [((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 255, 255, 0), (255, 0, 0))],
    )
    def test_cmyk_jpeg_as_adobe_writes_it(self, ink: tuple[int, ...], expected: tuple[int, ...]):
        data = saved(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert b"Adobe" in data, "else nothing tells that the inks are inverted"
        assert np.abs(np.subtract(first_pixel(data), expected)).max() <= 3

    def test_cmyk_tiff(self):
        assert first_pixel(saved(Image.new("CMYK", (5, 5), (255, 0, 0, 0)), "TIFF")) == (0, 255, 255)


class TestOrientation:
    """The file stores the picture turned; whatever the tag says, it must come out as it was drawn."""

    STORED_BY: ClassVar = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }

    def stored(self, orientation: int, picture: Image.Image, extension: str) -> bytes:
        turn = self.STORED_BY[orientation]
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(extension, {})
        return saved(picture if turn is None else picture.transpose(turn), extension, exif=exif, **options)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(("extension", "tolerance"), [("JPEG", 12), ("PNG", 0), ("WEBP", 0), ("TIFF", 0)])
    def test_all_eight(self, extension: str, tolerance: int, orientation: int):
        decoded = decode(self.stored(orientation, gradient(), extension))
        assert decoded.size == (24, 16)
        assert farthest(decoded, gradient()) <= tolerance

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
    def test_other_modes_turn_too(self, mode: str):
        levels = np.arange(24, dtype=np.uint16).reshape(4, 6) * 10
        picture = Image.fromarray(levels * 257) if mode == "I;16" else Image.fromarray(levels.astype(np.uint8)).convert(mode)
        decoded = decode(self.stored(6, picture, "PNG"))
        assert np.array_equal(np.asarray(decoded)[..., 0], levels)

    @pytest.mark.parametrize("value", [0, 9, 4711])
    def test_unknown_values_leave_the_picture_alone(self, value: int):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = value
        assert farthest(decode(saved(gradient(), exif=exif)), gradient()) == 0

    def test_another_damaged_tag_does_not_matter(self):
        # One entry too few in the directory: Pillow warns, and the picture itself is whole.
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 9, ORIENTATION_TAG, 3, 1, 1, 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            decoded = decode(saved(gradient(), "JPEG", quality=95, subsampling=0, exif=exif))
        assert farthest(decoded, gradient()) <= 12


class TestDamage:
    @pytest.mark.parametrize("extension", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "PPM"])
    @pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
    def test_a_truncated_file(self, extension: str, share: float):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8))
        data = saved(noise, extension)
        with pytest.raises(PictureError):
            decode(data[: int(len(data) * share)])

    @pytest.mark.parametrize("data", [b"", b"\0", b"just some text\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
    def test_what_is_no_picture(self, tmp_path: Path, data: bytes):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(PictureError, match="not a picture of a known format"):
            decode(tmp_path / "a.png")

    def test_formats_that_start_programs_are_unknown(self):
        data = saved(gradient(), "EPS")
        with pytest.raises(PictureError, match="known format"):
            decode(data)

    def test_a_missing_file(self, tmp_path: Path):
        with pytest.raises(StorageError, match="is missing"):
            decode(tmp_path / "a.png")

    def test_a_picture_error_is_a_data_error(self):
        assert issubclass(PictureError, DataError)
        assert PictureError.exit_code == 65

    @settings(deadline=None)
    @given(data=st.data())
    def test_any_damage_is_a_picture_or_a_picture_error(self, data: st.DataObject):
        extension = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
        damaged = bytearray(saved(gradient(), extension))
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(PictureError):
            assert decode(bytes(damaged)).mode == "RGB"


class TestSize:
    @pytest.mark.parametrize("side", [9500, 14000, 60000])
    def test_a_decompression_bomb_is_refused_without_a_warning(self, side: int):
        assert side * side > MOST_PIXELS
        with pytest.raises(PictureError, match="Make it smaller"):
            decode(png_that_claims(side, side))

    def test_whatever_the_filters_of_others(self):
        """Another library may reset the process's warning filters; the limit does not hang on them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(PictureError, match="Make it smaller"):
                decode(png_that_claims(9500, 9500))

    @pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
    def test_no_pixels(self, width: int, height: int):
        with pytest.raises(PictureError):
            decode(png_that_claims(width, height))

    def test_one_pixel(self):
        assert first_pixel(saved(Image.new("RGB", (1, 1), (1, 2, 3)))) == (1, 2, 3)


class TestPixels:
    def test_range_axes_and_type(self):
        picture = Image.new("RGB", (3, 2), (0, 255, 51))
        picture.putpixel((2, 0), (255, 0, 0))
        pixels = pixels_CHW(picture)
        assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 2, 3), np.float32, True)
        assert pixels[:, 1, 0].tolist() == [-1.0, 1.0, np.float32(51 / 127.5 - 1)]
        assert pixels[:, 0, 2].tolist() == [1.0, -1.0, -1.0]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body

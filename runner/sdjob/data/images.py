"""Picture files to RGB pixels. One rule for each of Pillow's modes, none of them silent.

Colours are taken as sRGB: embedded profiles are not applied, as in the programs whose weights people compare with.
Axes: C channel, H row, W column.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdjob.core.errors import DataError
from sdjob.data.reading import read_bytes

# Formats by name, since Pillow's full list holds some that start other programs (EPS starts Ghostscript).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000")
# Pillow warns from here on (a quarter of a GiB in RGB) and refuses at twice as many; this refuses at once.
MOST_PIXELS = 89_478_485
# https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf, section 4.6.5.A: tag 274, Orientation
ORIENTATION_TAG = 0x0112
UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Filters for the whole process, since `warnings.catch_warnings` is not safe in threads (before Python 3.14). Damaged
# metadata (EXIF, TIFF tags) is no reason to leave a picture out, or to print a line that names no file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class PictureError(DataError):
    """A file whose bytes are not a whole picture."""


def decode(source: Path | bytes) -> Image.Image:
    """An upright RGB picture of a file or of a file's bytes.

    EXIF orientation is applied. Transparency (an alpha channel, or a colour declared transparent) is laid on white. Of an
    animation the first frame is taken. 16-bit grey is scaled to 8 bits. CMYK is converted without a profile.

    Raises PictureError for what is no picture, is truncated, or has more than MOST_PIXELS; for a path also what
    `read_bytes` raises.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    try:
        with Image.open(io.BytesIO(data), formats=_installed_formats()) as picture:
            _check_size(picture)
            picture.load()
            return _rgb(_upright(picture))
    except (PictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"has more than {MOST_PIXELS} pixels. Make it smaller.") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError("is not a picture of a known format.") from error
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything: SyntaxError, struct.error, ...
        raise PictureError(f"cannot be decoded: {str(error).rstrip('.')}.") from error


def pixels_CHW(picture: Image.Image) -> npt.NDArray[np.float32]:
    """Pixels of an RGB picture in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    pixels_HWC = np.asarray(picture, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def _installed_formats() -> list[str]:
    """Pillow may have been built without WebP, AVIF or JPEG 2000."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(picture: Image.Image) -> None:
    if picture.width < 1 or picture.height < 1:
        raise PictureError("has no pixels.")
    if picture.width * picture.height > MOST_PIXELS:
        raise PictureError(f"has {picture.width} x {picture.height} pixels, more than {MOST_PIXELS}. Make it smaller.")


def _upright(picture: Image.Image) -> Image.Image:
    """Not ImageOps.exif_transpose: that writes the whole EXIF anew, and fails where some other tag is damaged."""
    turn = UPRIGHT_BY.get(picture.getexif().get(ORIENTATION_TAG, 1))
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _rgb_of_deep_grey(picture)
    if picture.mode == "F":
        raise PictureError("has floating-point pixels, whose range is not known. Save it with 8 or 16 bits.")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _rgb_of_deep_grey(picture: Image.Image) -> Image.Image:
    """0..65535 to 0..255, rounded; Pillow's own conversion cuts off at 255, which is all white.

    Mode "I" holds 32 bits, of which PNG and PGM files use 16.
    """
    values_HW = np.asarray(picture).astype(np.int64)
    if values_HW.min() < 0 or values_HW.max() > 65535:
        raise PictureError("has 32-bit pixels, whose range is not known. Save it with 8 or 16 bits.")
    return Image.fromarray(((values_HW * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")

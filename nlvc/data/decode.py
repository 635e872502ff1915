"""One picture file to one RGB array: orientation, colour modes, sample depth, size limit.

The rule, for every source of photos:

    EXIF orientation     applied
    grey                 the same value in red, green and blue
    16 bits a sample     the upper 8 bits
    palette, CMYK, ...   Pillow's conversion to RGB; colour profiles are ignored
    alpha                laid over white
    several pages        the first one
    32-bit, float        refused: their range is not known
"""

import io
import os
import threading
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 200_000_000
SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .tif .tiff .avif .avifs .bmp .ppm .pgm .pnm .jp2 .heic .heif .jxl".split()
)

_ORIENTATION = 0x0112

# Pillow's own limit is one global number, half of what we allow, and warns through `warnings`; it is looked at only
# while a file is being opened, so it is lifted for that moment, by one thread at a time.
_opening = threading.Lock()


class UnreadablePhotoError(ValueError):
    """A picture that cannot be decoded; the message is one line: the reason, without the picture's name."""


def decode(file: str | os.PathLike | bytes | BinaryIO) -> np.ndarray:
    """The photo in `file` (a path, the encoded bytes, or an open file) as uint8 (H, W, 3), H, W >= 1.

    Safe to call from several threads. Raises `UnreadablePhotoError` for a file that is missing, foreign, corrupt,
    truncated, over `MAX_PIXELS` pixels, or in a mode whose range is not known.
    """
    try:
        with _open(file) as image:
            return to_rgb(image)
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise _unreadable(error) from error


def open_picture(file: str | os.PathLike | bytes | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as Pillow gives it, loaded, in its own mode, as it is stored: not turned, its metadata in `info`.

    Raises like `decode`, but for the modes.
    """
    try:
        image = _open(file, max_pixels)
        image.load()
        return image
    except Exception as error:
        raise _unreadable(error) from error


def size(file: str | os.PathLike | bytes | BinaryIO) -> tuple[int, int]:
    """(H, W) as stored (before any EXIF rotation), from the header alone. Raises like `decode`."""
    try:
        with _open(file) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(error) from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode as (perhaps read-only) uint8 (H, W, 3), by the rule at the top of this file.

    Raises `UnreadablePhotoError` for 32-bit integer samples above 65535 and for floating-point samples, and whatever
    Pillow raises while it decodes.
    """
    if image.mode == "F":
        raise UnreadablePhotoError("floating-point samples, whose range is not known; convert the picture to 8 bits")
    image = _upright(image)
    if image.mode == "I" or image.mode.startswith("I;"):
        grey = np.asarray(image)
        if grey.size and (grey.min() < 0 or grey.max() > 0xFFFF):
            raise UnreadablePhotoError("32-bit samples, whose range is not known; convert the picture to 8 bits")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _open(file, max_pixels: int = MAX_PIXELS) -> Image.Image:
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    pixels = image.width * image.height
    if pixels > max_pixels:
        image.close()
        raise UnreadablePhotoError(
            f"{image.width} x {image.height} is {pixels / 1e6:.2f} megapixels; the limit is {max_pixels / 1e6:.0f}"
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        # The common case first: exif_transpose copies, which large photos feel.
        return image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels, so it must not cost the photo
        return image


def _unreadable(error: Exception) -> UnreadablePhotoError:
    if isinstance(error, UnreadablePhotoError):
        return error
    if isinstance(error, Image.UnidentifiedImageError):
        return UnreadablePhotoError("not a picture in a format that Pillow knows")
    text = " ".join(str(error).split())
    return UnreadablePhotoError(text or type(error).__name__)

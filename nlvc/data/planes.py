"""A picture as the codec sees it, RGB planes and alpha, and back."""

import io
import struct
import warnings

import numpy as np
from PIL import Image


class PictureError(ValueError):
    """A picture of a kind that cannot be coded, or a damaged alpha plane: one line that says which."""


def planes(image) -> tuple[np.ndarray, str, np.ndarray | None]:
    """A picture as (uint8 RGB (H, W, 3), mode, alpha (H, W) or None). Raises PictureError for what cannot be coded."""
    if isinstance(image, Image.Image):
        image = _from_pillow(image)
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise PictureError(f"pictures of 8 bits a sample only (uint8), got {image.dtype}: convert it first")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise PictureError(f"a picture has shape (H, W), (H, W, 3) or (H, W, 4), got {image.shape}")
    if image.ndim == 2:
        return np.broadcast_to(image[:, :, None], (*image.shape, 3)), "L", None
    if image.shape[2] == 3:
        return image, "RGB", None
    return image[:, :, :3], "RGBA", image[:, :, 3]


def encode_alpha(alpha: np.ndarray) -> bytes:
    """A plane uint8 (H, W) without loss, as PNG."""
    file = io.BytesIO()
    Image.fromarray(alpha).save(file, "PNG", optimize=True)
    return file.getvalue()


def decode_alpha(data: bytes, width: int, height: int) -> np.ndarray:
    """Undoes `encode_alpha`. Raises PictureError for anything but a grey PNG of that size."""
    # Pillow must not even begin with another size, and says by warnings what here is an error or of no account.
    if not data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, 0)):
        raise PictureError("damaged file: its alpha plane is not of the picture's size")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size == (width, height) and image.mode == "L":
                return np.asarray(image)
    except Exception:  # Pillow's decoders raise almost anything on damaged data
        pass
    raise PictureError("damaged file: its alpha plane cannot be read")


def _from_pillow(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise PictureError(f"pictures of 8 bits a sample only, got Pillow mode {image.mode}: convert it first")
    if image.has_transparency_data:  # also a transparent colour beside a palette, grey or RGB
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))

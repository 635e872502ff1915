"""Quality and rate of one decoded photo: NumPy uint8 in, Python floats out; and differences between whole curves.

The field's conventions, so that numbers compare with published ones: quality is taken on 8-bit pixels for each photo
and averaged over photos afterwards; rate counts every byte of the file.
"""

import jax
import numpy as np

from nlvc.evaluation.bjontegaard import bd_psnr, bd_rate, paired_bd_rate
from nlvc.models import distortion

__all__ = ["bd_psnr", "bd_rate", "bits_per_pixel", "ms_ssim", "paired_bd_rate", "psnr"]


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of one 8-bit photo, all channels together; +inf if the two are equal.

    Args:
      original, decoded: uint8 arrays (H, W) or (H, W, C) of one shape.

    Returns:
      10 log10(255^2 / MSE), summed exactly in integers.

    Raises:
      ValueError: not uint8, or shapes that differ or are not those of one photo.
    """
    _check(original, decoded)
    # int32 holds each squared difference; the sum of 2^31 of them still fits an int64.
    difference = original.astype(np.int32) - decoded
    squares = int(np.sum(np.square(difference), dtype=np.int64))
    return float(10 * np.log10(255**2 * original.size / squares)) if squares else float("inf")


def ms_ssim(original: np.ndarray, decoded: np.ndarray) -> float:
    """MS-SSIM of one 8-bit photo, mean over channels, in [0, 1]; nan for a photo with a side under 161 pixels.

    Args:
      original, decoded: uint8 arrays (H, W) or (H, W, C) of one shape.

    Returns:
      `nlvc.models.distortion.ms_ssim` of the photos divided by 255. Each new photo size compiles once, about a second.

    Raises:
      ValueError: not uint8, or shapes that differ or are not those of one photo.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < distortion.MIN_SIDE:
        return float("nan")
    # One channel at a time: a third of the memory, which counts for photos of 20 megapixels and more.
    planes = np.moveaxis(np.atleast_3d(original), -1, 0), np.moveaxis(np.atleast_3d(decoded), -1, 0)
    return float(np.mean([_plane_ms_ssim(a, b) for a, b in zip(*planes, strict=True)]))


def bits_per_pixel(num_bytes: int, height: int, width: int) -> float:
    """Rate of a file of `num_bytes` bytes, header and all, for a photo of height x width pixels: 8 bytes / pixels.

    Raises:
      ValueError: a side is not positive.
    """
    if height <= 0 or width <= 0:
        raise ValueError(f"a photo has at least one pixel, got {width}x{height}")
    return 8 * num_bytes / (height * width)


@jax.jit
def _plane_ms_ssim(a, b):
    scaled = (plane[..., None].astype("float32") / 255 for plane in (a, b))
    return distortion.ms_ssim(*scaled)


def _check(original, decoded):
    if original.dtype != np.uint8 or decoded.dtype != np.uint8:
        raise ValueError(f"photos must be uint8, got {original.dtype} and {decoded.dtype}")
    if original.shape != decoded.shape or original.ndim not in (2, 3) or not original.size:
        raise ValueError(
            f"the two photos must have one shape (H, W) or (H, W, C), got {original.shape} and {decoded.shape}"
        )

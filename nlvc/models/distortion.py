"""Distortion between a photo x and its reconstruction x_hat: MSE, PSNR and MS-SSIM.

All three are pure, differentiable JAX functions of two arrays of one shape (..., H, W, C) with values in [0, 1] and
return one value per image: shape (...), so (B,) for a batch and a scalar for a single image. Channels weigh the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

MIN_SIDE = 161  # five scales halve the side four times, and the 11-tap window must still fit at the coarsest
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first; Wang et al. 2003, section 3.2
WINDOW_SIZE, WINDOW_SIGMA = 11, 1.5
OVERLAP = WINDOW_SIZE - 1
BLOCK = 64  # at most so many outputs of one banded matrix product
C1, C2 = 0.01**2, 0.03**2  # (K1 * peak)^2 and (K2 * peak)^2 for a peak of 1

SMALLEST_SLOPE_AT = 1e-4  # below it a similarity has no gradient: that of s**0.0448 grows without bound towards 0


def mse(x: jax.Array, x_hat: jax.Array) -> jax.Array:
    """Mean squared error of each image on the [0, 1] scale, averaged over height, width and channels.

    Args:
      x, x_hat: float arrays (..., H, W, C), values in [0, 1] (values outside are not clipped).

    Returns:
      Array (...) >= 0, one value per image. The Lagrangian's distortion is 255^2 times its mean over the batch.

    Raises:
      ValueError: the shapes differ or have fewer than three axes.
    """
    _check_shapes(x, x_hat)
    return jnp.mean(jnp.square(x - x_hat), axis=(-3, -2, -1))


def psnr(x: jax.Array, x_hat: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of each image in dB for a peak of 1: -10 log10(MSE); +inf for equal images.

    Args:
      x, x_hat: float arrays (..., H, W, C), values in [0, 1].

    Returns:
      Array (...) of dB, one value per image. Average these, not the MSEs, for the field's "mean PSNR".

    Raises:
      ValueError: the shapes differ or have fewer than three axes.
    """
    return -10.0 * jnp.log10(mse(x, x_hat))


def ms_ssim(x: jax.Array, x_hat: jax.Array) -> jax.Array:
    """Multi-scale structural similarity of each image (Wang, Simoncelli, Bovik 2003), in [0, 1]; 1 for equal images.

    The similarity of a pair is, for each channel, luminance at the coarsest of five scales times contrast-structure
    at all five, each raised to its weight::

        x --blur--> cs_1     x/2 --blur--> cs_2     ...     x/16 --blur--> l_5 * cs_5
            ms_ssim = cs_1^.0448 * cs_2^.2856 * cs_3^.3001 * cs_4^.2363 * (l_5 cs_5)^.1333

    then averaged over channels. Conventions are those of the common implementations, so that published values compare:
    11x11 Gaussian window of sigma 1.5, only where it fits ("VALID"); population variances; negative similarities count
    as 0; 2x2 average pooling between scales, where an odd side first gets one row or column of zeros in front.

    The gradient is finite everywhere: none passes through a similarity below 1e-4, where the powers become too steep,
    and it is zero at equal images, where the measure has its maximum.

    Args:
      x, x_hat: float arrays (..., H, W, C), values in [0, 1], both sides at least 161 pixels.

    Returns:
      Array (...), one value per image. The training loss is 1 - ms_ssim; plots use -10 log10(1 - ms_ssim) dB.

    Raises:
      ValueError: the shapes differ, have fewer than three axes, or a side is under 161 pixels.
    """
    _check_shapes(x, x_hat)
    height, width = x.shape[-3:-1]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"MS-SSIM needs sides of at least {MIN_SIDE} pixels, got {width}x{height}: use larger patches")
    x, x_hat = jnp.moveaxis(x, -1, -3), jnp.moveaxis(x_hat, -1, -3)
    similarity = None
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, x_hat = _halve(x), _halve(x_hat)
        luminance, contrast = _similarity_maps(x, x_hat)
        coarsest = scale == len(SCALE_WEIGHTS) - 1
        mean = jnp.mean(luminance * contrast if coarsest else contrast, axis=(-2, -1))
        factor = _power(mean, weight)
        similarity = factor if similarity is None else similarity * factor
    return jnp.mean(similarity, axis=-1)


def _check_shapes(x, x_hat):
    if x.shape != x_hat.shape or x.ndim < 3:
        raise ValueError(f"the two images must have one shape (..., H, W, C), got {x.shape} and {x_hat.shape}")


@functools.cache
def _band(outputs: int) -> np.ndarray:
    """(outputs, outputs + 10) float64: row i holds the normalised window from column i on."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW_SIZE) - WINDOW_SIZE // 2) / WINDOW_SIGMA) ** 2)
    band = np.zeros((outputs, outputs + OVERLAP))
    for row in range(outputs):
        band[row, row : row + WINDOW_SIZE] = taps / taps.sum()
    return band


def _blur(x: jax.Array) -> jax.Array:
    """The Gaussian window over the last two axes, where it fits: (..., H, W) -> (..., H - 10, W - 10).

    Products with a banded matrix, in blocks so that the cost stays linear in the size. MS-SSIM of 8x256x256 pixels with
    its gradient took 0.2 s in this form on two CPU cores, 1.6 s by a depthwise convolution, 2.2 s by shifted sums.
    """
    return _blur_axis(_blur_axis(x, -2, "...iw,oi->...ow"), -1, "...i,oi->...o")


def _blur_axis(x: jax.Array, axis: int, product: str) -> jax.Array:
    """`product` says how a block's inputs i become its outputs o; axis is negative, the blocks go just before it."""
    size = x.shape[axis] - OVERLAP
    count = -(-size // BLOCK)
    block = max(-(-size // count), OVERLAP)
    padding = [(0, 0)] * x.ndim
    padding[axis] = 0, (count + 1) * block - x.shape[axis]
    before, after = x.shape[: x.ndim + axis], x.shape[x.ndim + axis + 1 :]
    x = jnp.pad(x, padding).reshape(*before, count + 1, block, *after)
    # A block's outputs need its own inputs and the first few of the next block.
    own, following = (jax.lax.slice_in_dim(x, k, k + count, axis=axis - 1) for k in (0, 1))
    x = jnp.concatenate([own, jax.lax.slice_in_dim(following, 0, OVERLAP, axis=axis)], axis=axis)
    # HIGHEST: accelerators otherwise round float32 operands to 10 bits, more than a variance here can bear.
    x = jnp.einsum(product, x, jnp.asarray(_band(block), x.dtype), precision=jax.lax.Precision.HIGHEST)
    return jax.lax.slice_in_dim(x.reshape(*before, count * block, *after), 0, size, axis=axis)


def _similarity_maps(x: jax.Array, x_hat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Luminance and contrast-structure terms of SSIM wherever the window fits (Wang et al. 2004, eq. 6-10)."""
    # Variances ignore a shift, and centred values lose less to E[x^2] - E[x]^2 in float32.
    a, b = x - 0.5, x_hat - 0.5
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a + b * b) - (mean_a * mean_a + mean_b * mean_b)
    covariance = _blur(a * b) - mean_a * mean_b
    mean_x, mean_x_hat = mean_a + 0.5, mean_b + 0.5
    luminance = (2 * mean_x * mean_x_hat + C1) / (mean_x * mean_x + mean_x_hat * mean_x_hat + C1)
    contrast = (2 * covariance + C2) / (variances + C2)
    return luminance, contrast


def _halve(x: jax.Array) -> jax.Array:
    """2x2 average pooling, (..., H, W) -> (..., ceil(H/2), ceil(W/2)); odd sides get zeros in front."""
    *batch, height, width = x.shape
    x = jnp.pad(x, [(0, 0)] * len(batch) + [(height % 2, 0), (width % 2, 0)])
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    return jnp.mean(x.reshape(*batch, height, 2, width, 2), axis=(-3, -1))


def _power(similarity: jax.Array, weight: float) -> jax.Array:
    """max(similarity, 0) ** weight, with no gradient below SMALLEST_SLOPE_AT."""
    steep = similarity < SMALLEST_SLOPE_AT
    smooth = jnp.where(steep, 1.0, similarity) ** weight
    constant = jax.lax.stop_gradient(jnp.maximum(similarity, 0.0) ** weight)
    return jnp.where(steep, constant, smooth)

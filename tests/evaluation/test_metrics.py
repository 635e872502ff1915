import math

import jax
import numpy as np
import pytest

from nlvc.evaluation.metrics import bits_per_pixel, ms_ssim, psnr
from nlvc.models import distortion


def photo(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), channels))
    return np.kron(coarse, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)


def test_psnr_by_hand():
    black = np.zeros((2, 5, 3), np.uint8)
    one_off = black.copy()
    one_off[1, 2, 0] = 3
    assert psnr(black, one_off) == pytest.approx(10 * math.log10(255**2 * 30 / 9), abs=1e-12)
    assert psnr(black, np.full_like(black, 255)) == 0
    assert psnr(np.full_like(black, 255), black) == 0  # unsigned differences would wrap here
    assert psnr(black, black) == math.inf
    assert type(psnr(black, one_off)) is float


def test_psnr_agrees_with_the_one_used_in_training():
    x, x_hat = photo(40, 31), photo(40, 31, seed=1)
    scaled = (np.float32(image) / 255 for image in (x, x_hat))
    assert psnr(x, x_hat) == pytest.approx(float(distortion.psnr(*scaled)), rel=1e-5)


def test_ms_ssim_is_the_mean_over_channels_of_the_one_used_in_training():
    x = photo(176, 176)
    x_hat = (x // 16 * 16 + np.arange(3, dtype=np.uint8)).astype(np.uint8)
    expected = jax.jit(distortion.ms_ssim)(*(np.float32(image) / 255 for image in (x, x_hat)))
    assert ms_ssim(x, x_hat) == pytest.approx(float(expected), abs=1e-6)
    assert ms_ssim(x[..., 0], x_hat[..., 0]) == pytest.approx(ms_ssim(x[..., :1], x_hat[..., :1]))
    assert ms_ssim(x, x) == pytest.approx(1, abs=1e-6)
    assert type(ms_ssim(x, x)) is float


def test_ms_ssim_of_a_small_photo_is_unknown():
    assert math.isnan(ms_ssim(photo(160, 300), photo(160, 300)))


def test_bits_per_pixel():
    assert bits_per_pixel(3, 4, 2) == 3.0
    with pytest.raises(ValueError, match="at least one pixel, got 7x0"):
        bits_per_pixel(3, 0, 7)


@pytest.mark.parametrize("measure", [psnr, ms_ssim])
def test_what_is_no_pair_of_photos_is_refused(measure):
    x = photo(200, 200)
    with pytest.raises(ValueError, match="must be uint8, got uint8 and float32"):
        measure(x, np.float32(x))
    for other in (x[:-1], x[..., 0]):
        with pytest.raises(ValueError, match="one shape"):
            measure(x, other)
    with pytest.raises(ValueError, match="one shape"):
        measure(x[:0], x[:0])

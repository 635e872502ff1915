import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from nlvc.models.distortion import BLOCK, MIN_SIDE, SCALE_WEIGHTS, ms_ssim, mse, psnr

SHAPE = (2, 176, 176, 2)  # of nearly every test, so that each function compiles once
jitted_ms_ssim = jax.jit(ms_ssim)
value_and_gradient = jax.jit(jax.value_and_grad(lambda x, x_hat: ms_ssim(x, x_hat).sum(), argnums=1))


def photos(shape, seed=0):
    """Smooth random pictures with some grain, float32 in [0, 1]: structure at every scale, as photos have."""
    rng = np.random.default_rng(seed)
    *_, height, width, _ = shape
    x = np.zeros(shape)
    for octave in range(6):
        step = 2**octave
        coarse = rng.normal(size=(*shape[:-3], -(-height // step), -(-width // step), shape[-1])) * step**0.8
        x += coarse.repeat(step, axis=-3).repeat(step, axis=-2)[..., :height, :width, :]
    x = 0.5 + 0.2 * x / x.std()
    return np.clip(x, 0, 1).astype(np.float32)


def noisy(x, sigma, seed=1):
    return np.clip(x + sigma * np.random.default_rng(seed).normal(size=x.shape), 0, 1).astype(np.float32)


def reference_ms_ssim(x, x_hat):
    """The definition, one image (H, W, C) in float64 on the 255 scale, written without the tricks of the fast form."""
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    taps /= taps.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(image):
        for axis in (0, 1):
            image = correlate1d(image, taps, axis=axis, mode="constant")
        return image[5:-5, 5:-5]

    def halve(image):
        height, width = image.shape
        image = np.pad(image, ((height % 2, 0), (width % 2, 0)))
        return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4

    values = []
    for channel in range(x.shape[-1]):
        a, b = 255 * np.float64(x[..., channel]), 255 * np.float64(x_hat[..., channel])
        product = 1.0
        for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
            if scale:
                a, b = halve(a), halve(b)
            mean_a, mean_b = blur(a), blur(b)
            var_a, var_b = blur(a**2) - mean_a**2, blur(b**2) - mean_b**2
            cs = (2 * (blur(a * b) - mean_a * mean_b) + c2) / (var_a + var_b + c2)
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            similarity = np.mean(cs * luminance if scale == 4 else cs)
            product *= max(similarity, 0.0) ** weight
        values.append(product)
    return np.mean(values)


def test_mse_and_psnr_are_per_image():
    x = np.zeros((2, 4, 5, 3), np.float32)
    x_hat = np.stack([np.full((4, 5, 3), 0.1), np.full((4, 5, 3), 0.01)]).astype(np.float32)
    np.testing.assert_allclose(mse(x, x_hat), [1e-2, 1e-4], rtol=1e-5)
    np.testing.assert_allclose(psnr(x, x_hat), [20.0, 40.0], rtol=1e-5)
    assert psnr(x[0], x_hat[0]).shape == ()
    assert np.all(np.isposinf(psnr(x, x)))


def test_mse_gradient():
    x, x_hat = photos((2, 6, 6, 3)), photos((2, 6, 6, 3), seed=5)
    gradient = jax.grad(lambda b: mse(x, b).sum())(x_hat)
    np.testing.assert_allclose(gradient, 2 * (x_hat - x) / x[0].size, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "shape, sigma",
    [
        (SHAPE, 0.02),
        ((2, MIN_SIDE, MIN_SIDE, 1), 0.1),  # odd at each scale: the zeros in front of every pooling count
        ((1, 161, 4 * BLOCK + 11, 3), 0.3),  # one output more than four blocks: the last is partly padding
    ],
)
def test_ms_ssim_agrees_with_the_definition(shape, sigma):
    x = photos(shape)
    x_hat = noisy(x, sigma)
    expected = [reference_ms_ssim(a, b) for a, b in zip(x, x_hat, strict=True)]
    np.testing.assert_allclose(jitted_ms_ssim(x, x_hat), expected, atol=2e-5)


def test_ms_ssim_counts_negative_structure_as_zero():
    x = photos(SHAPE)
    assert reference_ms_ssim(x[0], 1 - x[0]) == 0
    value, gradient = value_and_gradient(x, 1 - x)
    assert value == 0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0, None])
def test_equal_images_have_similarity_one_and_a_flat_gradient(level):
    x = photos(SHAPE) if level is None else np.full(SHAPE, level, np.float32)
    value, gradient = value_and_gradient(x, x)
    np.testing.assert_allclose(value / len(x), 1.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_the_gradient_is_finite_against_a_flat_image():
    _, gradient = value_and_gradient(photos(SHAPE), np.full(SHAPE, 0.5, np.float32))
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_the_gradient_agrees_with_a_difference():
    x = photos(SHAPE)
    x_hat = noisy(x, 0.1)
    _, gradient = value_and_gradient(x, x_hat)
    direction = np.asarray(gradient) / np.linalg.norm(gradient)
    step = 0.5
    above, below = (jitted_ms_ssim(x, x_hat + sign * step * direction).sum() for sign in (1, -1))
    np.testing.assert_allclose((above - below) / (2 * step), np.vdot(gradient, direction), rtol=0.02)


def test_ms_ssim_falls_with_noise_and_is_symmetric():
    x = photos(SHAPE)
    values = np.stack([jitted_ms_ssim(x, noisy(x, sigma)) for sigma in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)])
    assert np.all(np.diff(values, axis=0) < 0)
    assert np.all(values[-1] >= 0)
    x_hat = noisy(x, 0.1)
    np.testing.assert_allclose(jitted_ms_ssim(x, x_hat), jitted_ms_ssim(x_hat, x), rtol=1e-5)


def test_each_image_and_channel_of_a_batch_counts_alone():
    x = photos(SHAPE)
    x_hat = noisy(x, 0.1)
    x_hat[0, ..., 0] = x[0, ..., 0]
    values = jitted_ms_ssim(x, x_hat)
    assert values.shape == (2,)
    alone = reference_ms_ssim(x[0, ..., 1:], x_hat[0, ..., 1:])
    np.testing.assert_allclose(values, [(1 + alone) / 2, reference_ms_ssim(x[1], x_hat[1])], atol=2e-5)


def test_weights_are_those_of_the_paper():
    assert SCALE_WEIGHTS == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def test_small_or_unequal_images_are_refused():
    x = jnp.zeros((1, MIN_SIDE - 1, 300, 3))
    with pytest.raises(ValueError, match="161 pixels, got 300x160"):
        ms_ssim(x, x)
    for function in (mse, psnr, ms_ssim):
        with pytest.raises(ValueError, match="one shape"):
            function(jnp.zeros((1, 200, 200, 3)), jnp.zeros((1, 200, 201, 3)))
        with pytest.raises(ValueError, match="one shape"):
            function(jnp.zeros((200, 200)), jnp.zeros((200, 200)))

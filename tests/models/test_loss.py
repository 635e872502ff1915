"""The Lagrangian of a reconstruction and bits that are made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.config import tiny
from nlvc.models.distortion import ms_ssim
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import Output

pytestmark = pytest.mark.usefixtures("quick_compilation")
lagrangian = jax.jit(rate_distortion, static_argnums=0)


def output_of(x, errors, bits):
    """An Output whose photo b is x[b] + errors[b] in every sample."""
    x_hat = x + np.float32(errors).reshape(-1, 1, 1, 1)
    return Output(jnp.asarray(x_hat), tuple(jnp.asarray(level, jnp.float32) for level in bits))


def test_the_lagrangian_and_its_terms():
    x = np.full((2, 4, 8, 3), 0.5, np.float32)
    output = output_of(x, [0.1, -0.02], bits=[[64, 128], [8, 8], [1, 3]])
    loss, terms = lagrangian(tiny(L=3, lmbda=0.01), output, x)
    # 32 pixels: bits are counted by the pixel, not by the sample; errors by the sample.
    np.testing.assert_allclose(terms["bpp_levels"], [96 / 32, 8 / 32, 2 / 32], rtol=1e-6)
    assert terms["bpp"] == pytest.approx(106 / 32)
    assert terms["mse"] == pytest.approx((0.1**2 + 0.02**2) / 2, rel=1e-4)
    # The mean of the photos' PSNR, not the PSNR of their mean error.
    assert terms["psnr"] == pytest.approx((20 - 20 * np.log10(0.02)) / 2, rel=1e-4)
    assert loss == pytest.approx(106 / 32 + 0.01 * 255**2 * (0.1**2 + 0.02**2) / 2, rel=1e-4)
    assert terms.keys() == {"bpp", "bpp_levels", "mse", "psnr"}
    assert terms["bpp_levels"].shape == (3,) and loss.shape == terms["bpp"].shape == ()


def test_a_perfect_reconstruction_costs_its_bits_alone():
    x = np.full((1, 2, 2, 3), 0.25, np.float32)
    loss, terms = lagrangian(tiny(L=1, strides=(16,)), output_of(x, [0], bits=[[20]]), x)
    assert loss == terms["bpp"] == 5
    assert terms["mse"] == 0 and np.isfinite(terms["psnr"])


def test_another_lambda_than_that_of_the_model():
    """One for all photos, or each its own: the mean of what models of these lambdas say, unless the rate varies."""
    x = np.full((2, 4, 8, 3), 0.5, np.float32)
    output = output_of(x, [0.1, -0.02], bits=[[64, 128], [8, 8]])
    first, second = (float(lagrangian(tiny(L=2, lmbda=lmbda), output, x)[0]) for lmbda in (0.01, 0.04))
    loss, terms = lagrangian(tiny(L=2, lmbda=0.01), output, x, 0.04)
    assert loss == pytest.approx(second, rel=1e-6)
    assert terms["bpp"] + 0.04 * 255**2 * terms["mse"] == pytest.approx(second, rel=1e-6)
    both = lagrangian(tiny(L=2, lmbda=0.01), output, x, np.full(2, 0.01, np.float32))[0]
    assert both == pytest.approx(first, rel=1e-6)
    each = lagrangian(tiny(L=2, lmbda=0.01), output, x, np.float32([0.01, 0.04]))[0]
    assert each == pytest.approx((72 / 32 + 0.01 * 650.25 + 136 / 32 + 0.04 * 26.01) / 2, rel=1e-4)


def test_gradient_of_the_lagrangian():
    x = np.full((2, 4, 8, 3), 0.5, np.float32)
    output = output_of(x, [0.1, -0.02], bits=[[64, 128], [8, 8]])
    config = tiny(L=2, lmbda=0.01)
    slopes = jax.jit(jax.grad(lambda output: rate_distortion(config, output, x)[0]))(output)
    for level in slopes.bits:
        np.testing.assert_allclose(level, 1 / (2 * 32), rtol=1e-6)
    expected = 0.01 * 255**2 * 2 * (np.asarray(output.x_hat) - x) / x.size
    np.testing.assert_allclose(slopes.x_hat, expected, rtol=1e-4)


def test_ms_ssim_as_the_distortion():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(1, 176, 176, 3)).astype(np.float32)
    x_hat = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)
    output = Output(jnp.asarray(x_hat), (jnp.float32([176.0**2]),))
    config = tiny(L=1, lmbda=60.0, distortion="ms-ssim", patch_size=176)
    loss, terms = lagrangian(config, output, x)
    similarity = float(jax.jit(ms_ssim)(x, x_hat)[0])
    assert 0.5 < similarity < 0.999
    assert terms["ms_ssim"] == pytest.approx(similarity, rel=1e-5)
    assert terms["bpp"] == pytest.approx(1)
    assert loss == pytest.approx(1 + 60 * (1 - similarity), rel=1e-4)
    assert lagrangian(config, output, x, 20.0)[0] == pytest.approx(1 + 20 * (1 - similarity), rel=1e-4)
    assert terms["mse"] == pytest.approx(np.mean((x - x_hat) ** 2), rel=1e-4)  # told all the same

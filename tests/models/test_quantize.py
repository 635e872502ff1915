"""Values and gradients of binning and of its stand-ins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.models.quantize import (
    add_uniform_noise,
    bin_uniform,
    round_straight_through,
    soft_round,
    soft_round_inverse,
    symbols,
)


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def _latents(seed=0, shape=(2, 5, 7, 3), spread=10.0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, spread, shape), jnp.float32)


def _slopes(function, z):
    """Derivative of an elementwise function at every element."""
    return np.asarray(jax.jit(jax.grad(lambda z: jnp.sum(function(z))))(z))


_soft_round, _soft_round_inverse = jax.jit(soft_round), jax.jit(soft_round_inverse)
_soft_round_slopes = jax.jit(jax.grad(lambda z, temperature: jnp.sum(soft_round(z, temperature))))
_soft_round_inverse_slopes = jax.jit(jax.grad(lambda y, temperature: jnp.sum(soft_round_inverse(y, temperature))))


# --- bin_uniform, symbols ---


def test_bin_is_the_nearest_offset_integer():
    z, mean = _latents(0), _latents(1)
    binned = bin_uniform(z, mean)
    assert binned.dtype == z.dtype and binned.shape == z.shape
    assert np.max(np.abs(np.asarray(binned - z))) <= 0.5 + 1e-5
    offsets = np.asarray(binned, np.float64) - np.asarray(mean, np.float64)
    np.testing.assert_allclose(offsets, np.round(offsets), atol=1e-5)


def test_bin_is_symbol_plus_mean():
    z, mean = _latents(2), _latents(3)
    index = symbols(z, mean)
    assert index.dtype == jnp.int32 and index.shape == z.shape
    np.testing.assert_array_equal(bin_uniform(z, mean), index.astype(jnp.float32) + mean)


def test_binning_leaves_a_bins_centre_alone():
    centres = jnp.arange(-300.0, 301.0) + 0.25
    np.testing.assert_array_equal(bin_uniform(centres, 0.25), centres)


def test_ties_go_to_the_even_integer_as_in_numpy():
    halves = np.arange(-4, 5, dtype=np.float32) + np.float32(0.5)
    np.testing.assert_array_equal(bin_uniform(halves), np.round(halves))
    np.testing.assert_array_equal(symbols(halves), np.round(halves).astype(np.int32))


def test_symbols_are_limited_not_wrapped():
    z = jnp.array([1e30, -1e30, 2.0**30, -(2.0**31), 12.3])
    np.testing.assert_array_equal(symbols(z), [2**30, -(2**30), 2**30, -(2**30), 12])


def test_binning_has_no_gradient():
    z, mean = _latents(4), _latents(5)
    by_z, by_mean = jax.grad(lambda z, mean: jnp.sum(bin_uniform(z, mean) ** 2), argnums=(0, 1))(z, mean)
    assert not np.any(by_z) and not np.any(by_mean)


# --- add_uniform_noise ---


def test_noise_is_uniform_on_the_unit_bin():
    z = jnp.zeros((200_000,))
    noise = np.asarray(add_uniform_noise(jax.random.key(0), z), np.float64)
    assert noise.min() >= -0.5 and noise.max() <= 0.5
    counts = np.histogram(noise, bins=10, range=(-0.5, 0.5))[0]
    # 20,000 a tenth with a standard deviation of 134.
    assert np.all(np.abs(counts - 20_000) < 6 * 134)


def test_noise_depends_on_the_key_alone():
    z = _latents(6)
    first = add_uniform_noise(jax.random.key(1), z)
    np.testing.assert_array_equal(first, add_uniform_noise(jax.random.key(1), z))
    assert np.mean(np.asarray(first) == np.asarray(add_uniform_noise(jax.random.key(2), z))) < 0.01


def test_gradient_passes_noise_unchanged():
    z = _latents(7)
    np.testing.assert_array_equal(_slopes(lambda z: add_uniform_noise(jax.random.key(3), z), z), np.ones(z.shape))


# --- round_straight_through ---


@settings(max_examples=200)
@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e3, 1e3, width=32))
def test_straight_through_value_is_exactly_the_bin(z, mean):
    z, mean = jnp.float32(z), jnp.float32(mean)
    assert round_straight_through(z, mean) == bin_uniform(z, mean)


def test_straight_through_value_is_exactly_the_bin_near_zero():
    # Here z + (round(z) - z), the other way to write it, is wrong in the last bit for one value in eight.
    z, mean = _latents(16, spread=0.5), _latents(17, spread=0.5)
    np.testing.assert_array_equal(round_straight_through(z, mean), bin_uniform(z, mean))


def test_straight_through_gradient_is_one_for_z_and_zero_for_the_mean():
    z, mean = _latents(8), _latents(9)
    by_z, by_mean = jax.grad(lambda z, mean: jnp.sum(round_straight_through(z, mean)), argnums=(0, 1))(z, mean)
    np.testing.assert_array_equal(by_z, np.ones(z.shape))
    np.testing.assert_array_equal(by_mean, np.zeros(z.shape))


def test_straight_through_gradient_is_taken_at_the_rounded_value():
    z = _latents(10)
    slopes = _slopes(lambda z: round_straight_through(z) ** 2, z)
    np.testing.assert_allclose(slopes, 2 * np.round(np.asarray(z)), rtol=1e-6)


def test_straight_through_in_forward_mode_and_under_jit():
    z, direction = _latents(11), _latents(12)
    value, tangent = jax.jit(lambda z, t: jax.jvp(round_straight_through, (z,), (t,)))(z, direction)
    np.testing.assert_array_equal(value, np.round(np.asarray(z)))
    np.testing.assert_array_equal(tangent, direction)


# --- soft_round ---


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.5, 2.0, 100.0])
def test_soft_round_keeps_integers_and_half_integers(temperature):
    fixed = jnp.asarray(np.arange(-12, 13) / 2, jnp.float32)
    np.testing.assert_allclose(_soft_round(fixed, temperature), fixed, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0, 10.0])
def test_soft_round_increases_and_stays_between_z_and_its_integer(temperature):
    z = jnp.linspace(-3.0, 3.0, 6001)
    y = np.asarray(_soft_round(z, temperature))
    assert np.all(np.diff(y) >= -1e-6)
    z = np.asarray(z)
    low, high = np.minimum(z, np.round(z)), np.maximum(z, np.round(z))
    assert np.all((y >= low - 1e-5) & (y <= high + 1e-5))


def test_soft_round_limits():
    z = _latents(13)
    away_from_ties = np.abs(np.asarray(z) % 1.0 - 0.5) > 0.01
    for cold in (0.0, 1e-6, 1e-3):
        np.testing.assert_allclose(_soft_round(z, cold)[away_from_ties], np.round(z)[away_from_ties], atol=1e-6)
    for hot in (100.0, 1e6, np.inf):
        np.testing.assert_allclose(_soft_round(z, hot), z, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0, 10.0])
def test_soft_round_gradient_is_that_of_its_value(temperature):
    z = jnp.linspace(-1.97, 1.97, 400)
    exact = np.asarray(z, np.float64)
    inner = (exact - np.floor(exact) - 0.5) / temperature
    expected = 0.5 / temperature / np.cosh(inner) ** 2 / np.tanh(0.5 / temperature)
    slopes = _soft_round_slopes(z, temperature)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)


def test_soft_round_gradient_with_respect_to_temperature():
    def by_hand(z, t):
        half = np.floor(z) + 0.5
        return half + 0.5 * np.tanh((z - half) / t) / np.tanh(0.5 / t)

    z, temperature, step = 1.3, 0.4, 1e-6
    expected = (by_hand(z, temperature + step) - by_hand(z, temperature - step)) / (2 * step)
    slope = jax.jit(jax.grad(soft_round, argnums=1))(jnp.float32(z), jnp.float32(temperature))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1e-4, 0.01, 1.0, 1e3, np.inf])
def test_soft_round_is_finite_at_any_temperature(temperature):
    z = jnp.append(_latents(14), jnp.array([0.0, 0.5, -0.5, 1.0, 1e4, -1e4]))
    for function in (_soft_round, _soft_round_slopes, _soft_round_inverse, _soft_round_inverse_slopes):
        assert np.all(np.isfinite(function(z, temperature)))


@pytest.mark.parametrize("temperature", [0.15, 0.3, 1.0, 10.0])
def test_soft_round_inverse_undoes_it(temperature):
    z = _latents(15, spread=3.0)
    np.testing.assert_allclose(_soft_round_inverse(_soft_round(z, temperature), temperature), z, atol=2e-3)
    np.testing.assert_allclose(_soft_round(_soft_round_inverse(z, temperature), temperature), z, atol=1e-5)

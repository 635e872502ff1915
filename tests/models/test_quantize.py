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
    fake_quantise,
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


# --- fake_quantise ---


@settings(max_examples=100)
@given(
    low=st.floats(-100, 100, width=32),
    size=st.floats(1 / 64, 100, width=32),
    steps=st.sampled_from([1, 2, 254, 255]),
    seed=st.integers(0, 99),
)
def test_fake_quantise_gives_the_nearest_value_of_the_grid(low, size, steps, seed):
    x = np.random.default_rng(seed).uniform(low - size / 2, low + 1.5 * size, 40).astype(np.float32)
    y = np.asarray(fake_quantise(jnp.asarray(x), jnp.float32(low), jnp.float32(low + size), steps=steps), np.float64)
    grid = low + (np.float32(low + size) - np.float64(low)) * np.arange(steps + 1) / steps
    # A few of float32's last bits at the largest number that occurs.
    slack = 2.0**-20 * (abs(low) + size)
    assert np.max(np.min(np.abs(y[:, None] - grid), axis=1)) <= slack
    cut = np.clip(x, grid[0], grid[-1])
    assert np.all(np.abs(y - cut) <= size / steps / 2 + slack)


def test_fake_quantise_cuts_to_its_range_and_keeps_its_ends():
    x = jnp.array([-1e30, -2.0, 1.0, 1e30])
    np.testing.assert_allclose(fake_quantise(x, jnp.float32(-2), jnp.float32(1)), [-2, -2, 1, 1], rtol=1e-6)


def test_fake_quantise_leaves_what_is_on_its_grid_alone():
    low, high = jnp.float32(-7.3), jnp.float32(19.1)
    once = fake_quantise(jnp.linspace(-10, 20, 5001), low, high)
    assert len(np.unique(np.round(np.asarray(once), 3))) == 256
    np.testing.assert_allclose(fake_quantise(once, low, high), once, atol=1e-5)
    # A kernel's zero is one of its 255 values, so that what is not there stays so.
    largest = jnp.full((1, 1, 1, 3), 2.7)
    np.testing.assert_allclose(fake_quantise(jnp.zeros((1, 2, 2, 3)), -largest, largest, steps=254), 0, atol=1e-6)


def test_fake_quantise_has_a_range_for_each_channel():
    x = _latents(18)
    high = jnp.array([0.5, 5.0, 50.0]).reshape(1, 1, 1, 3)
    y = fake_quantise(x, -high, high, steps=20)
    for channel, largest in enumerate((0.5, 5.0, 50.0)):
        expected = fake_quantise(x[..., channel], jnp.float32(-largest), jnp.float32(largest), steps=20)
        np.testing.assert_allclose(y[..., channel], expected, rtol=1e-6, atol=1e-6)
        assert len(np.unique(np.round(np.asarray(expected), 4))) <= 21


def test_fake_quantise_has_the_gradient_of_cutting():
    x = _latents(19)
    slopes = _slopes(lambda x: fake_quantise(x, jnp.float32(-6), jnp.float32(9)), x)
    inside = (np.asarray(x) > -6) & (np.asarray(x) < 9)
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_array_equal(slopes, inside.astype(np.float32))


def test_fake_quantise_has_no_gradient_for_its_range():
    x = _latents(20)
    low, high = jnp.float32(-6), jnp.float32(9)
    by_low, by_high = jax.grad(lambda low, high: jnp.sum(fake_quantise(x, low, high) ** 2), argnums=(0, 1))(low, high)
    assert by_low == by_high == 0


def test_fake_quantise_of_a_flat_range_is_finite():
    """A kernel or an activation that is zero everywhere."""
    for value in (0.0, -3.7):
        flat = jnp.float32(value)
        x = jnp.array([value - 1, value, value + 1])
        np.testing.assert_array_equal(fake_quantise(x, flat, flat), jnp.full(3, flat))
        assert np.all(np.isfinite(_slopes(lambda x, flat=flat: fake_quantise(x, flat, flat), x)))

"""Numbers that depend on lambda: exact at the knots, straight between them in its logarithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.config import LAMBDAS, ConfigError, tiny
from nlvc.models.freeze import at_rate
from nlvc.models.freeze_encoder import gain_of
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import NestedLatentModel, Output, step_gain
from nlvc.models.rates import KNOTS, QUALITIES, at, hats, lmbda_of, quality_of
from nlvc.models.start import initialise
from nlvc.training.loop import sample_lambdas

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = tiny(L=2, strides=(4, 2), channels=5, filters=4, latent_filters=3, patch_size=16, rate="variable")
KEY = jax.random.key(0)


def test_weights_are_one_at_the_knots_and_even_between_them():
    np.testing.assert_allclose(hats(jnp.array(LAMBDAS)), np.eye(KNOTS), atol=1e-6)
    middles = np.sqrt(np.array(LAMBDAS[1:]) * LAMBDAS[:-1])
    expected = (np.eye(KNOTS)[1:] + np.eye(KNOTS)[:-1]) / 2
    np.testing.assert_allclose(hats(jnp.asarray(middles, jnp.float32)), expected, atol=1e-5)
    # Beyond the ends it is as at the ends.
    np.testing.assert_allclose(hats(jnp.array([1e-9, 9.0])), np.eye(KNOTS)[[0, -1]], atol=1e-6)


def test_rows_for_one_rate_and_for_many():
    values = np.arange(2.0 * KNOTS, dtype=np.float32).reshape(KNOTS, 2)
    np.testing.assert_array_equal(at(values[3], None), values[3].reshape(1, 1, 1, 2))
    np.testing.assert_allclose(at(values, hats(jnp.array(LAMBDAS[2:4]))), values[2:4].reshape(2, 1, 1, 2), atol=1e-4)


def test_qualities():
    assert [lmbda_of(quality) for quality in (0, QUALITIES - 1)] == pytest.approx([LAMBDAS[0], LAMBDAS[-1]])
    assert [quality_of(lmbda_of(quality)) for quality in range(QUALITIES)] == list(range(QUALITIES))
    assert (quality_of(1e-9), quality_of(9)) == (0, QUALITIES - 1)


@pytest.mark.parametrize("flags", [{"distortion": "ms-ssim", "patch_size": 176}, {"linear_path": False}])
def test_what_cannot_be_of_variable_rate(flags):
    with pytest.raises(ConfigError, match="rate=variable: needs"):
        tiny(rate="variable", **flags)


def test_every_batch_sees_small_and_large_lambdas():
    lambdas = np.stack([sample_lambdas(jax.random.key(seed), 0, 4) for seed in range(200)])
    assert LAMBDAS[0] <= lambdas.min() and lambdas.max() <= LAMBDAS[-1] * 1.0001
    quarters = np.log(lambdas / LAMBDAS[0]) / np.log(LAMBDAS[-1] / LAMBDAS[0]) * 4
    assert np.all((np.arange(4) <= quarters) & (quarters <= np.arange(1, 5) + 1e-4))
    assert quarters[:, 0].std() > 0.2


def test_each_photo_has_its_own_lagrangian():
    x, lambdas = jnp.zeros((2, 4, 4, 3)), jnp.array([0.013, 0.052])
    output = Output(x + jnp.array([0.1, 0.2]).reshape(2, 1, 1, 1), (jnp.array([16.0, 32.0]),))
    value, terms = rate_distortion(CONFIG, output, x, lambdas)
    single = [1 + 0.013 * 255**2 * 0.01, (2 + 0.052 * 255**2 * 0.04) / 2]
    np.testing.assert_allclose(value, np.mean(single), rtol=1e-5)
    np.testing.assert_allclose(terms["bpp"], 1.5)


@pytest.fixture(scope="module")
def params():
    crops = np.random.default_rng(0).random((16, 16, 16, 3), np.float32)
    params = initialise(CONFIG, KEY, crops)
    # Shifts that matter.
    return jax.tree.map_with_path(lambda path, p: p + 0.3 if "shift" in str(path) else p, params)


def test_the_start_has_the_best_bins_of_every_rate(params):
    np.testing.assert_allclose(np.exp(params["log_gain"][:, 0]), [step_gain(lmbda) for lmbda in LAMBDAS], rtol=1e-5)
    deviations = np.exp(params["log_scale_1"])
    assert np.all(deviations[-1] > deviations[0])


@pytest.mark.parametrize("knot", [0, 3, KNOTS - 1])
def test_at_one_rate_it_is_a_model_of_one_rate(params, knot):
    """The parameters that are frozen for a quality, in a model of that lambda, give the same."""
    rate = at_rate(params, np.eye(KNOTS)[knot])
    fixed = tiny(**{**vars(CONFIG), "rate": "fixed", "lmbda": LAMBDAS[knot]})
    x = np.random.default_rng(1).random((2, 16, 16, 3), np.float32)
    weights = hats(jnp.full(2, LAMBDAS[knot]))
    ours, theirs = NestedLatentModel(CONFIG), NestedLatentModel(fixed)
    plain = {"params": jax.tree.map(np.float32, rate)}
    np.testing.assert_allclose(gain_of(rate), np.full(5, step_gain(LAMBDAS[knot])), rtol=1e-4)
    latents = ours.apply({"params": params}, x, weights, method="infer")
    expected = theirs.apply(plain, x, method="infer")
    for z, e in zip(latents, expected, strict=True):
        np.testing.assert_allclose(z, e, rtol=1e-3, atol=1e-3)
    given = ours.apply({"params": params}, 1, expected[1], None, weights, method="conditional")
    wanted = theirs.apply(plain, 1, expected[1], method="conditional")
    np.testing.assert_allclose(given.mean, wanted.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(given.scale, wanted.scale, rtol=1e-3)
    pixels = ours.apply({"params": params}, expected[0], weights, method="synthesise")
    np.testing.assert_allclose(pixels, theirs.apply(plain, expected[0], method="synthesise"), atol=1e-4)

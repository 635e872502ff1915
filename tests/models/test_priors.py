"""The priors against SciPy in float64, against their limits, and against one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.models.factorized import Factorized, init_factorized
from nlvc.models.priors import FAMILIES, Prior, gaussian, laplace, logistic

DISTRIBUTIONS = {"logistic": scipy.stats.logistic, "gaussian": scipy.stats.norm, "laplace": scipy.stats.laplace}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_prior = pytest.mark.parametrize("name", [*FAMILIES, "factorized"])


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@jax.jit
def _compiled_rate(prior, z):
    return prior.log_mass(z), prior.bits(z)


@jax.jit
def _compiled_slopes(prior, z):
    return jax.grad(lambda prior, z: jnp.sum(prior.log_mass(z)), argnums=(0, 1))(prior, z)


def _elementwise(function, family, z, mean, scale):
    """function(Prior, z) at one shape, so that a family compiles once for all tests; float32 arrays of z's shape."""
    z, mean, scale = np.broadcast_arrays(*(np.asarray(a, np.float32) for a in (z, mean, scale)))
    padded = [np.pad(a.ravel(), (0, 8192 - a.size), constant_values=1) for a in (z, mean, scale)]
    results = function(Prior(family, *padded[1:]), padded[0])
    return jax.tree.map(lambda a: np.asarray(a)[: z.size].reshape(z.shape), results)


def _log_mass(family, z, mean=0.0, scale=1.0):
    return _elementwise(_compiled_rate, family, z, mean, scale)[0]


def _log_mass_slopes(family, z, mean=0.0, scale=1.0):
    """Derivatives of the log-mass by the mean, by the scale and by z."""
    prior, by_z = _elementwise(_compiled_slopes, family, z, mean, scale)
    return prior.mean, prior.scale, by_z


# SciPy's own Laplace underflows in logsf and logpdf.


def _log_survival(family, x):
    if family == "laplace":
        return np.where(x > 0, -np.maximum(x, 0) - np.log(2), np.log1p(-0.5 * np.exp(np.minimum(x, 0))))
    return DISTRIBUTIONS[family].logsf(x)


def _log_density(family, x):
    return -np.abs(x) - np.log(2) if family == "laplace" else DISTRIBUTIONS[family].logpdf(x)


def _reference(family, d, s):
    """In float64, of a bin d >= 0 from the mean: log-mass and its derivatives by d and by s."""
    d, s = d.astype(np.float64), s.astype(np.float64)
    lower, upper = (d - 0.5) / s, (d + 0.5) / s
    distribution = DISTRIBUTIONS[family]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_lower, log_upper = _log_survival(family, lower), _log_survival(family, upper)
        beyond = log_lower + np.log(-np.expm1(log_upper - log_lower))
        both_tails = np.log1p(-(distribution.sf(upper) + distribution.cdf(lower)))
        log_mass = np.where(lower >= 0, beyond, both_tails)
        at_lower = np.exp(_log_density(family, lower) - log_mass) / s
        at_upper = np.exp(_log_density(family, upper) - log_mass) / s
    return log_mass, at_upper - at_lower, lower * at_lower - upper * at_upper


def _grid():
    """Distances from the mean up to 1e4, with the edges of every branch, at scales from 1e-3 to 1e4."""
    near = [0, 0.1, 0.25, 0.4, 0.4999, 0.5, 0.5001, 0.6, 1, 1.5, 2, 3]
    d = np.concatenate([near, np.logspace(0.3, 4, 120)]).astype(np.float32)
    s = np.logspace(-3, 4, 57).astype(np.float32)
    return np.broadcast_arrays(d[None, :], s[:, None])


# --- Mass of a bin ---


@every_family
@pytest.mark.parametrize("side", [-1, 1])
def test_log_mass_is_scipys(family, side):
    d, s = _grid()
    expected, _, _ = _reference(family, d, s)
    actual = _log_mass(family, side * d, 0.0, s)
    assert np.all(np.isfinite(expected)) and np.all(np.isfinite(actual)) and np.all(actual <= 0)
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-6)


@every_family
def test_gradients_are_scipys(family):
    d, s = _grid()
    _, by_d, by_s = _reference(family, d, s)
    by_mean, by_scale, by_z = _log_mass_slopes(family, d, 0.0, s)
    # Float64 itself loses the derivative further out; the next test goes there. Its natural size is 1/s.
    sure = d / s < 1e4
    np.testing.assert_allclose((by_z * s)[sure], (by_d * s)[sure], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose((by_scale * s)[sure], (by_s * s)[sure], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(by_mean, -by_z)


@every_family
def test_gradients_are_finite_and_point_home(family):
    d, s = _grid()
    by_mean, by_scale, by_z = _log_mass_slopes(family, d, 0.0, s)
    for slopes in (by_mean, by_scale, by_z):
        assert np.all(np.isfinite(slopes))
    outside = d > 0.75 + 3 * s
    assert np.all(by_mean[outside] > 0) and np.all(by_scale[outside] > 0)
    # Far out the log-mass is -x for the logistic and the Laplace, -x^2/2 for the Gaussian, x = (d - 1/2)/s.
    far = (d > 100) & (d / s > 1e4)
    x = ((d.astype(np.float64) - 0.5) / s)[far]
    pull = x if family == "gaussian" else np.ones_like(x)
    np.testing.assert_allclose((by_mean * s)[far], pull, rtol=1e-4)
    np.testing.assert_allclose((by_scale * s)[far], pull * x, rtol=1e-4)


@settings(max_examples=100)
@given(
    family=st.sampled_from(FAMILIES),
    mean=st.floats(-1e4, 1e4, width=32),
    distance=st.floats(-1e4, 1e4, width=32),
    log_scale=st.floats(-3, 4),
)
def test_everything_is_finite_anywhere(family, mean, distance, log_scale):
    point = {"z": mean + distance, "mean": mean, "scale": 10.0**log_scale}
    rate = _elementwise(_compiled_rate, family, **point)
    assert np.all(np.isfinite(rate)) and np.all(np.isfinite(_log_mass_slopes(family, **point)))
    assert rate[0] <= 0 <= rate[1]


@pytest.mark.parametrize(("family", "nats"), [("gaussian", 12251259.426), ("logistic", 4950), ("laplace", 4950.693)])
def test_a_bin_5000_scales_away(family, nats):
    # By hand, lower edge at 49.5 / 0.01 = 4950 scales: Gaussian 4950^2/2 + ln(4950 sqrt(2 pi)), Laplace 4950 + ln 2.
    np.testing.assert_allclose(-_log_mass(family, 50.0, 0.0, 0.01), nats, rtol=1e-6)


@every_family
def test_narrow_scale_puts_all_mass_into_one_bin(family):
    mass = np.exp(_log_mass(family, [2.0, 2.71, 3.0, 3.2, 3.69, 4.0, 5.0], 3.2, 1e-3))
    np.testing.assert_allclose(mass, [0, 1, 1, 1, 1, 0, 0], atol=1e-4)
    # On the edge between two bins, half each.
    np.testing.assert_allclose(np.exp(_log_mass(family, [3.0, 4.0], 3.5, 1e-3)), 0.5, rtol=1e-6)


@every_family
def test_wide_scale_turns_mass_into_density(family):
    z = np.linspace(-6e4, 6e4, 301, dtype=np.float32)
    expected = DISTRIBUTIONS[family].logpdf(z.astype(np.float64), loc=0.3, scale=1e4)
    np.testing.assert_allclose(_log_mass(family, z, 0.3, 1e4), expected, rtol=1e-6)


@pytest.mark.parametrize(("family", "bits"), [("logistic", 2.0296), ("gaussian", 1.3849), ("laplace", 1.3457)])
def test_standard_bin_at_zero_costs(family, bits):
    # 2.03 bits: -log2(sigmoid(1/2) - sigmoid(-1/2)), what a standard logistic prior asks of a latent that is always 0.
    np.testing.assert_allclose(_elementwise(_compiled_rate, family, 0.0, 0.0, 1.0)[1], bits, atol=1e-4)


@every_family
def test_log_mass_has_no_step_where_its_formula_changes(family):
    # Neighbouring points may differ by no more than the slope between them.
    for d, s in ((np.linspace(0, 4, 4001), 2.0), (np.linspace(0.4, 0.6, 2001), 0.3), (np.linspace(10, 40, 4001), 6.0)):
        d = d.astype(np.float32)
        _, slopes, _ = _reference(family, d, np.full_like(d, s))
        expected = np.diff(d.astype(np.float64)) * (slopes[1:] + slopes[:-1]) / 2
        values = _log_mass(family, d, 0.0, s).astype(np.float64)
        np.testing.assert_allclose(np.diff(values), expected, rtol=0, atol=1e-5)


# --- cdf and quantile ---


@every_family
def test_cdf_is_scipys(family):
    x = np.concatenate([-np.logspace(7, -3, 200), [0], np.logspace(-3, 7, 200)]).astype(np.float32)
    cdf, log_cdf, log_survival = jax.jit(lambda p, z: (p.cdf(z), p.log_cdf(z), p.log_survival(z)))(Prior(family), x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(cdf, DISTRIBUTIONS[family].cdf(exact), rtol=1e-5, atol=1e-35)
    np.testing.assert_allclose(log_survival, _log_survival(family, exact), rtol=1e-5, atol=1e-35)
    np.testing.assert_allclose(log_cdf, _log_survival(family, -exact), rtol=1e-5, atol=1e-35)


@every_family
def test_slope_of_the_cdf_is_the_density(family):
    @jax.jit
    def slopes(x):
        verbs = (Prior(family).cdf, Prior(family).log_cdf, Prior(family).log_survival)
        return [jax.grad(lambda x, f=f: jnp.sum(f(x)))(x) for f in verbs]

    x = np.append(np.linspace(-6, 6, 121), [-1e2, -1e4, -1e7]).astype(np.float32)
    by_cdf, by_log_cdf, by_log_survival = slopes(x)
    near, far = np.abs(x) <= 6, x < -6
    exact, distribution = x[near].astype(np.float64), DISTRIBUTIONS[family]
    density = distribution.pdf(exact)
    np.testing.assert_allclose(by_cdf[near], density, rtol=1e-4)
    np.testing.assert_allclose(by_log_cdf[near], density / distribution.cdf(exact), rtol=1e-4)
    np.testing.assert_allclose(by_log_survival[near], -density / distribution.sf(exact), rtol=1e-4)
    # The gradient of jax.scipy.special.log_ndtr is 1 at -1e5, where it should be 1e5: not so here.
    np.testing.assert_allclose(by_log_cdf[far], -x[far] if family == "gaussian" else np.ones(3), rtol=2e-4)


@every_family
def test_quantile_is_scipys(family):
    p = np.array([1e-30, 1e-6, 0.01, 0.3, 0.5, 0.7, 0.99, 1 - 1e-6, 0, 1], np.float32)
    expected = DISTRIBUTIONS[family].ppf(p.astype(np.float64), loc=2, scale=3)
    np.testing.assert_allclose(jax.jit(Prior(family, 2.0, 3.0).quantile)(p), expected, rtol=1e-5)


# --- Prior ---


def test_unknown_family_is_named():
    with pytest.raises(ValueError, match=r"unknown prior family 'cauchy'.*logistic, gaussian, laplace"):
        Prior("cauchy", 0.0, 1.0)


def test_family_is_static_and_the_rest_are_leaves():
    prior = Prior("laplace", np.zeros(2), np.ones(2))
    assert len(jax.tree.leaves(prior)) == 2
    doubled = jax.tree.map(lambda a: 2 * a, prior)
    assert doubled.family == "laplace"
    np.testing.assert_array_equal(doubled.scale, [2, 2])


@pytest.mark.parametrize("make", [logistic, gaussian, laplace])
def test_constructors_name_their_family(make):
    prior = make(1.0, 2.0)
    assert (prior.family, prior.mean, prior.scale) == (make.__name__, 1.0, 2.0)


def test_parameters_broadcast_by_channel_and_under_vmap():
    z = np.random.default_rng(1).normal(0, 3, (2, 3, 4, 5)).astype(np.float32)
    mean, scale = np.linspace(-3, 4, 5, dtype=np.float32), np.geomspace(0.2, 30, 5, dtype=np.float32)
    expected = _log_mass("gaussian", z, mean, scale)
    by_channel = jax.jit(lambda z: gaussian(mean, scale).log_mass(z))(z)
    mapped = jax.jit(jax.vmap(lambda m, s, z: gaussian(m, s).log_mass(z), in_axes=(0, 0, -1), out_axes=-1))
    for actual in (by_channel, mapped(mean, scale, z)):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# --- The same verbs for every prior ---

CHANNELS = 5
QUARTERS = np.arange(-3000, 3000, 0.25)  # every integer, its bin's edges, and points between


def _every_channel(values):
    """(N,) -> (N, CHANNELS), float32."""
    return np.repeat(np.asarray(values, np.float32)[:, None], CHANNELS, axis=1)


@functools.cache
def _start(channels=CHANNELS, filters=(3, 3, 3), init_scale=10.0):
    return jax.jit(init_factorized, static_argnums=(1, 2, 3))(jax.random.key(0), channels, filters, init_scale)


def _trained_factors(seed=0, spread=1.0):
    """Parameters as far from their start as training may take them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: np.asarray(np.asarray(a) + rng.normal(0, spread, a.shape), np.float32), _start())


def _some_prior(name):
    if name == "factorized":
        return Factorized(**_trained_factors())
    mean, scale = np.linspace(-3, 4, CHANNELS), np.geomspace(0.2, 30, CHANNELS)
    return Prior(name, mean.astype(np.float32), scale.astype(np.float32))


VERBS = ("cdf", "log_cdf", "log_survival", "log_mass", "mass", "bits", "coded_bits")


@jax.jit
def _all_verbs(prior, z):
    return {verb: getattr(prior, verb)(z) for verb in VERBS}


@functools.cache
def _on_quarters(name):
    values = _all_verbs(_some_prior(name), _every_channel(QUARTERS))
    return {verb: np.asarray(a, np.float64) for verb, a in values.items()}


_quantile = jax.jit(lambda prior, p: prior.quantile(p))


@every_prior
def test_verbs_keep_the_latents_shape(name):
    z = jnp.ones((2, 3, 4, CHANNELS))
    for value in jax.eval_shape(_all_verbs, _some_prior(name), z).values():
        assert value.shape == z.shape and value.dtype == jnp.float32
    assert jax.eval_shape(_quantile, _some_prior(name), 0.5).shape == (CHANNELS,)


@every_prior
def test_mass_sums_to_one_over_the_integers(name):
    for offset in range(4):
        np.testing.assert_allclose(_on_quarters(name)["mass"][offset::4].sum(axis=0), 1, atol=2e-5)


@every_prior
def test_mass_is_the_difference_of_the_cdf(name):
    values = _on_quarters(name)
    np.testing.assert_allclose(values["mass"][2:-2], values["cdf"][4:] - values["cdf"][:-4], atol=1e-6)


@every_prior
def test_verbs_agree_with_one_another(name):
    values = _on_quarters(name)
    np.testing.assert_allclose(values["bits"], -values["log_mass"] / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(values["mass"], np.exp(values["log_mass"]), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(values["cdf"], np.exp(values["log_cdf"]), rtol=2e-5, atol=1e-37)
    np.testing.assert_allclose(1 - values["cdf"], np.exp(values["log_survival"]), atol=1e-6)
    assert np.all(values["bits"] >= 0) and np.all(np.isfinite(values["log_survival"]))


@every_prior
def test_coded_bits_are_the_bits_or_those_of_an_escape(name):
    prior, values = _some_prior(name), _on_quarters(name)
    distance = np.abs(QUARTERS[:, None] - np.asarray(getattr(prior, "mean", 0.0)))
    escape = 18 + 2 * np.log2(1 + distance)
    cheaper = np.minimum(values["bits"], escape)
    # A mixture of the two: never more than either, and where one is far cheaper, that one.
    assert np.all(values["coded_bits"] <= cheaper + 1e-4) and np.all(values["coded_bits"] >= 0)
    clear = np.abs(values["bits"] - escape) > 8
    assert clear.any()
    np.testing.assert_allclose(values["coded_bits"][clear], cheaper[clear], atol=0.01)


def test_an_outlier_pulls_no_harder_than_a_logarithm():
    """Of z = 40 under a narrow Gaussian: its bits pull with thousands, its coded bits with less than one."""
    slope = lambda verb: jax.grad(lambda z: getattr(gaussian(0.0, 0.11), verb)(z))(40.0)  # noqa: E731
    assert slope("bits") > 1000
    assert slope("coded_bits") == pytest.approx(2 / 41 / np.log(2), rel=1e-3)


@every_prior
def test_quantile_undoes_the_cdf(name):
    p = _every_channel([0, 1e-4, *np.linspace(0.01, 0.99, 97), 0.999, 1])
    z = np.asarray(_quantile(_some_prior(name), p))
    assert np.all(z[0] == -np.inf) and np.all(z[-1] == np.inf) and np.all(z[1:] > z[:-1])
    np.testing.assert_allclose(_all_verbs(_some_prior(name), z)["cdf"], p, rtol=1e-3)


@every_prior
def test_gradients_reach_every_parameter(name):
    z = np.random.default_rng(0).normal(0, 20, (101, CHANNELS)).astype(np.float32)
    slopes, by_z = _compiled_slopes(_some_prior(name), z)
    for leaf in [*jax.tree.leaves(slopes), by_z.T]:
        assert leaf.shape[0] == CHANNELS and np.all(np.isfinite(leaf))
        assert np.all(np.any(np.asarray(leaf).reshape(CHANNELS, -1) != 0, axis=1))


@every_prior
def test_integers_are_latents_too(name):
    z = _every_channel(np.arange(-50, 51))
    by_float, by_integer = (_all_verbs(_some_prior(name), a) for a in (z, z.astype(np.int32)))
    for verb in VERBS:
        np.testing.assert_allclose(by_integer[verb], by_float[verb], rtol=1e-6)


# --- Factorized ---


def _cdf_by_hand(factors, z):
    """cdf of z (N, C) in float64, straight from the paper's formula."""
    x = z.T[:, None, :].astype(np.float64)
    for k in range(len(factors["layers"])):
        layer = {name: np.asarray(a, np.float64) for name, a in factors["layers"][str(k)].items()}
        x = np.log1p(np.exp(layer["matrix"])) @ x + layer["bias"]
        if "factor" in layer:
            x = x + np.tanh(layer["factor"]) * np.tanh(x)
    return 1 / (1 + np.exp(-x[:, 0, :].T))


def test_factorized_is_the_papers_formula():
    values, factors, z = _on_quarters("factorized"), _trained_factors(), _every_channel(QUARTERS).astype(np.float64)
    near = np.abs(QUARTERS) < 5
    np.testing.assert_allclose(values["cdf"][near], _cdf_by_hand(factors, z[near]), rtol=1e-5)
    mass = _cdf_by_hand(factors, z[near] + 0.5) - _cdf_by_hand(factors, z[near] - 0.5)
    np.testing.assert_allclose(values["mass"][near], mass, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_factorized_increases_and_is_finite_far_away(spread):
    z = _every_channel(np.concatenate([-np.logspace(4, -2, 50), [0], np.logspace(-2, 4, 50)]))
    for seed in range(5):
        prior = Factorized(**_trained_factors(seed, spread))
        values = {verb: np.asarray(a) for verb, a in _all_verbs(prior, z).items()}
        below, above = values["log_cdf"], values["log_survival"]
        assert np.all(np.diff(below, axis=0) >= -1e-6) and np.all(np.diff(above, axis=0) <= 1e-6)
        assert np.all(below[-1] > below[0]) and np.all(above[-1] < above[0])
        slopes, by_z = _compiled_slopes(prior, z)
        for value in [values["log_mass"], by_z, *jax.tree.leaves(slopes)]:
            assert np.all(np.isfinite(value))
        assert np.all(by_z[0] > 0) and np.all(by_z[-1] < 0)


@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_factorized_is_finite_for_extreme_parameters(extreme):
    factors = jax.tree.map(lambda a: np.full_like(a, extreme), _start())
    z = _every_channel(np.linspace(-1e4, 1e4, 101))
    slopes, by_z = _compiled_slopes(Factorized(**factors), z)
    for value in [_all_verbs(Factorized(**factors), z)["log_mass"], by_z, *jax.tree.leaves(slopes)]:
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("init_scale", [0.3, 10.0])
def test_factorized_starts_as_a_logistic_about_0(init_scale):
    prior = Factorized(**_start(init_scale=init_scale))
    z = _every_channel(init_scale * np.linspace(-8, 8, 101))
    actual = _all_verbs(prior, z)["log_mass"]
    np.testing.assert_allclose(actual, _log_mass("logistic", z, 0.0, init_scale), rtol=1e-3, atol=1e-3)


def test_factorized_starts_with_a_scale_for_each_channel():
    scales = np.geomspace(0.3, 10, CHANNELS).astype(np.float32)
    prior = Factorized(**init_factorized(jax.random.key(0), CHANNELS, init_scale=scales))
    quartiles = np.asarray(_quantile(prior, _every_channel(np.array([0.25, 0.75]))))
    np.testing.assert_allclose(quartiles, np.outer([-np.log(3), np.log(3)], scales), rtol=1e-3, atol=1e-3)


def test_factorized_without_hidden_layers_is_a_logistic():
    factors = _start(filters=(), init_scale=2.0)
    mean = -2.0 * np.asarray(factors["layers"]["0"]["bias"]).reshape(CHANNELS)
    z = _every_channel(np.linspace(-30, 30, 101))
    actual = _all_verbs(Factorized(**factors), z)["log_mass"]
    np.testing.assert_allclose(actual, _log_mass("logistic", z, mean, 2.0), rtol=1e-5)


def test_factorized_medians():
    prior = _some_prior("factorized")
    medians = _quantile(prior, 0.5)
    assert medians.shape == (CHANNELS,)
    np.testing.assert_allclose(_cdf_by_hand(_trained_factors(), np.asarray(medians)[None, :]), 0.5, rtol=1e-5)


def test_factorized_channels_do_not_meet():
    z = np.random.default_rng(2).normal(0, 5, (101, CHANNELS)).astype(np.float32)
    before = _all_verbs(_some_prior("factorized"), z)["bits"]
    changed = jax.tree.map(np.copy, _trained_factors())
    for layer in changed["layers"].values():
        for array in layer.values():
            array[2] += 1
    after = _all_verbs(Factorized(**changed), z)["bits"]
    np.testing.assert_array_equal(np.any(np.asarray(before != after), axis=0), np.arange(CHANNELS) == 2)


def test_factorized_learns_two_peaks():
    """Its cost comes near the entropy of a source that no single logistic, Gaussian or Laplace describes."""
    rng = np.random.default_rng(0)
    z = np.where(rng.random((4000, 1)) < 0.3, rng.normal(-12, 1, (4000, 1)), rng.normal(6, 2, (4000, 1))).round()
    shares = np.unique(z, return_counts=True)[1] / len(z)
    entropy = -np.sum(shares * np.log2(shares))
    best_gaussian = np.log2(z.std() * np.sqrt(2 * np.pi * np.e))
    optimiser = optax.adam(0.03)

    @jax.jit
    def fit(factors, z):
        def step(carry, _):
            factors, state = carry
            cost, slopes = jax.value_and_grad(lambda f: jnp.mean(Factorized(**f).bits(z)))(factors)
            updates, state = optimiser.update(slopes, state)
            return (optax.apply_updates(factors, updates), state), cost

        return jax.lax.scan(step, (factors, optimiser.init(factors)), length=400)[1]

    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        costs = np.asarray(fit(_start(channels=1), z.astype(np.float32)))
    assert best_gaussian - entropy > 0.5
    assert entropy - 1e-3 < costs[-1] < entropy + 0.1
    assert costs[0] > costs[100] > costs[-1]


def test_factorized_is_a_flax_parameter():
    class Rate(nn.Module):
        @nn.compact
        def __call__(self, z):
            return Factorized(**self.param("prior", init_factorized, z.shape[-1])).bits(z)

    z = jnp.zeros((1, 2, 2, CHANNELS))
    variables = jax.eval_shape(Rate().init, jax.random.key(0), z)
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(variables)}
    assert {"params/prior/layers/0/matrix", "params/prior/layers/0/factor", "params/prior/layers/3/bias"} <= names
    assert "params/prior/layers/3/factor" not in names and len(names) == 11
    assert jax.eval_shape(Rate().apply, variables, z).shape == z.shape


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match=r"prior of 5 channels got a latent of shape \(2, 4\)"):
        _some_prior("factorized").bits(jnp.zeros((2, 4)))
    for wrong in ({"channels": 0}, {"channels": 3, "filters": (3, 0)}, {"channels": 3, "init_scale": 0.0}):
        with pytest.raises(ValueError, match="positive sizes"):
            init_factorized(jax.random.key(0), **wrong)

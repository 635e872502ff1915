"""The Markov chain: its shapes for every L, one training pass taken apart, gradients, and where it starts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from nlvc import coding
from nlvc.config import LAMBDAS, tiny
from nlvc.models.factorized import Factorized
from nlvc.models.lapped import postfilter, prefilter
from nlvc.models.layers import depth_to_space, space_to_depth
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import SCALE_MAX, SCALE_MIN, NestedLatentModel, bounded, log_gains, step_gain
from nlvc.models.quantize import add_uniform_noise, bin_uniform
from nlvc.models.start import cosine_basis

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def small(levels, **changes):
    narrow = {"channels": 5, "filters": 4, "latent_filters": 3, "strides": (4, 2, 1, 1, 1)[:levels]}
    return tiny(**{**narrow, "L": levels, "patch_size": 128, **changes})


def photos(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def shapes_of_params(config):
    x = jax.ShapeDtypeStruct((1, config.patch_size, config.patch_size, 3), jnp.float32)
    return jax.eval_shape(NestedLatentModel(config).init, KEY, x, KEY)["params"]


def random_params(config):
    """Parameters all of which matter, unlike the zeros at the start of training, and of the usual size."""
    rng = np.random.default_rng(0)
    size = lambda p: (p.shape[-1] / p.size) ** 0.5 if len(p.shape) > 1 else 0.3  # noqa: E731
    params = jax.tree.map(lambda p: rng.normal(0, size(p), p.shape).astype(np.float32), shapes_of_params(config))
    bases = {name: p * np.float32(len(p) ** 0.5) for name, p in params.items() if name.endswith("basis")}
    return {**params, **bases, "log_gain": params["log_gain"] + log_gains(config, params["log_gain"].shape)}


# --- Shapes, without computing anything ---


def traced(config, shape):
    """Shapes of (latents, bits of each under its conditional, x_hat), following the chain from the top."""
    model = NestedLatentModel(config)

    def chain(params, x):
        latents = model.apply({"params": params}, x, method="infer")
        bits = []
        for level, z in enumerate(latents, start=1):
            above = latents[level] if level < config.L else None
            prior = model.apply({"params": params}, level, above, z.shape[1:3], method="conditional")
            bits.append(prior.bits(z))
        return latents, bits, model.apply({"params": params}, latents[0], method="synthesise")

    return jax.eval_shape(chain, shapes_of_params(config), jax.ShapeDtypeStruct((*shape, 3), jnp.float32))


@pytest.mark.parametrize(
    ("levels", "size"), list(enumerate([(33, 47), (1, 1), (64, 16), (129, 1), (33, 47), (64, 64), (1, 70), (5, 5)], 1))
)
def test_shapes_of_every_chain(levels, size):
    height, width = size
    config = small(levels, strides=(), dims="tapered")
    latents, bits, x_hat = traced(config, (2, height, width))
    shapes = config.level_shapes(height, width)
    for z, cost, shape, channels in zip(latents, bits, shapes, config.level_channels, strict=True):
        assert z.shape == cost.shape == (2, *shape, channels)
        assert z.dtype == cost.dtype == jnp.float32
    assert x_hat.shape == (2, 16 * shapes[0][0], 16 * shapes[0][1], 3)


@pytest.mark.parametrize(
    "kind",
    [
        {"prior": "logistic", "conditional": "gaussian", "dims": "common"},
        {"prior": "gaussian", "conditional": "logistic", "dims": "tapered"},
        {"prior": "laplace", "conditional": "laplace", "transform": "plain", "activation": "gdn"},
        {"prior": "trainable-logistic", "conditional": "gaussian", "quantization": "noise"},
        {"prior": "factorized", "conditional": "logistic", "linear_path": False},
    ],
    ids=lambda kind: kind["prior"],
)
def test_a_pass_of_every_kind(kind):
    config = small(2, **kind)
    model, params = NestedLatentModel(config), random_params(config)
    output = jax.eval_shape(lambda params, x: model.apply({"params": params}, x, KEY), params, photos(3, 18, 13, 3))
    assert output.x_hat.shape == (3, 18, 13, 3) and output.x_hat.dtype == jnp.float32
    assert [bits.shape for bits in output.bits] == [(3,), (3,)]
    above = photos(1, 3, 2, config.level_channels[1])
    below = jax.eval_shape(lambda z: model.apply({"params": params}, 1, z, (5, 4), method="conditional"), above)
    assert below.family == kind["conditional"]
    assert below.mean.shape == below.scale.shape == (1, 5, 4, config.level_channels[0])
    top = model.apply({"params": params}, 2, method="conditional")
    if kind["prior"] == "factorized":
        assert isinstance(top, Factorized) and top.channels == config.level_channels[-1]
    else:
        assert top.family == kind["prior"].removeprefix("trainable-")


# --- p(z_L) and the scales ---


@pytest.mark.parametrize("family", ["logistic", "gaussian", "laplace"])
def test_a_predefined_prior_does_not_depend_on_parameters(family):
    config = small(1, prior=family, prior_scale=0.5)
    top = NestedLatentModel(config).apply({"params": random_params(config)}, 1, method="conditional")
    assert top.family == family
    assert top.mean.item() == 0 and top.scale.item() == 0.5


def test_a_trainable_logistic_prior_has_its_own_mean_and_scale_in_each_channel():
    config = small(2, prior="trainable-logistic", dims="tapered")
    params = random_params(config)
    top = NestedLatentModel(config).apply({"params": params}, 2, method="conditional")
    np.testing.assert_array_equal(top.mean[0, 0, 0], params["prior_mean"])
    np.testing.assert_allclose(top.scale[0, 0, 0], SCALE_MIN + np.exp(params["log_scale_2"]), rtol=1e-5)


def test_bounded_is_the_scale_plus_the_least_one_up_to_the_largest():
    log_scale = np.linspace(-12, 12, 241, dtype=np.float32)
    scale = np.asarray(jax.jit(bounded)(log_scale))
    np.testing.assert_allclose(scale, np.minimum(SCALE_MIN + np.exp(log_scale), SCALE_MAX), rtol=1e-5)
    assert np.all(np.diff(scale) >= 0)


def test_bounded_has_its_limits_and_finite_slopes_at_any_log_scale():
    log_scale = np.float32([-1e30, -1e4, -50, -2, 0, 3, 5.54, 6, 1e4, 1e30])
    scale, slope = jax.jit(jax.vmap(jax.value_and_grad(bounded)))(log_scale)
    np.testing.assert_allclose(scale[:3], SCALE_MIN, rtol=1e-5)
    np.testing.assert_allclose(scale[-3:], SCALE_MAX, rtol=1e-5)
    np.testing.assert_allclose(slope[3:7], np.exp(log_scale[3:7]), rtol=1e-4)  # of SCALE_MIN + exp
    np.testing.assert_allclose(slope[:3], 0, atol=1e-20)
    np.testing.assert_array_equal(slope[-3:], 0)


def test_the_bounds_of_the_scales_are_those_of_the_coders_tables():
    np.testing.assert_allclose((SCALE_MIN, SCALE_MAX), (coding.SCALES[0], coding.SCALES[-1]), rtol=1e-6)


# --- The gain and the linear path ---


@pytest.mark.parametrize("lmbda", LAMBDAS)
def test_step_gain_minimises_the_lagrangian_at_high_rates(lmbda):
    def lagrangian(log_gain):
        step = math.exp(-log_gain)
        return -3 * math.log2(step) + lmbda * 255**2 * step**2 / 12

    best = minimize_scalar(lagrangian, bounds=(-5, 10), method="bounded", options={"xatol": 1e-9})
    assert step_gain(lmbda) == pytest.approx(math.exp(best.x), rel=1e-5)


def test_the_gain_starts_as_the_best_step():
    # The lambdas of MS-SSIM are on another scale.
    ms_ssim = small(1, lmbda=60.0, distortion="ms-ssim", patch_size=176)
    for config, lmbda in [(small(1, lmbda=0.1), 0.1), (ms_ssim, 0.013)]:
        np.testing.assert_allclose(np.exp(log_gains(config, (5,))), np.full(5, step_gain(lmbda)), rtol=1e-5)
    variable = np.exp(log_gains(small(1, rate="variable"), (len(LAMBDAS), 5)))
    expected = np.array([step_gain(lmbda) for lmbda in LAMBDAS])[:, None]
    np.testing.assert_allclose(variable, expected.repeat(5, axis=1), rtol=1e-5)


@pytest.mark.parametrize("rate", ["fixed", "variable"])
def test_a_fresh_model_has_that_gain(rate):
    config = small(1, rate=rate, patch_size=32)
    x = photos(1, 32, 32, 3)
    params = jax.jit(NestedLatentModel(config).init)(KEY, x, KEY)["params"]
    np.testing.assert_array_equal(params["log_gain"], log_gains(config, shapes_of_params(config)["log_gain"].shape))


@pytest.mark.parametrize("linear_path", [True, False])
def test_the_gain_says_the_bins_of_each_channel_of_z_1(linear_path):
    """Twice the gain is twice z_1, and twice z_1 at twice the gain is the same picture."""
    config, doubled = small(1, linear_path=linear_path), np.log([1, 2, 4, 8, 16]).astype(np.float32)
    params, x = random_params(config), photos(1, 16, 12, 3)
    finer = {**params, "log_gain": params["log_gain"] + doubled}

    @jax.jit
    def there_and_back(params):
        (z,) = NestedLatentModel(config).apply({"params": params}, x, method="infer")
        return z, NestedLatentModel(config).apply({"params": params}, z, method="synthesise")

    (z, x_hat), (finer_z, finer_x_hat) = there_and_back(params), there_and_back(finer)
    np.testing.assert_allclose(finer_z, z * np.exp(doubled).reshape(1, 1, 1, 5), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(finer_x_hat, x_hat, atol=1e-4)


def linear_model(**changes):
    """(config, params) of a model of one level whose networks are silent and whose linear path has all components."""
    config = small(1, channels=48, **changes)
    params = jax.tree.map(lambda p: np.zeros(p.shape, p.dtype), shapes_of_params(config))
    basis = cosine_basis(photos(4, 8, 8, 3), 4, 48) * np.float32(48**0.5)  # how it is stored
    return config, params | {
        "analysis_basis": basis, "synthesis_basis": basis, "log_gain": np.asarray(log_gains(config, (48,)))
    }  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(7, 5), (1, 1), (8, 16), (3, 18)])
def test_the_linear_path_alone_is_an_orthonormal_transform_code(height, width):
    """With all components it keeps the energy, times the gain, and gives every photo back, whatever its size."""
    config, params = linear_model()
    x = photos(1, height, width, 3, seed=1)

    @jax.jit
    def there_and_back(x):
        (z,) = NestedLatentModel(config).apply({"params": params}, x, method="infer")
        return z, NestedLatentModel(config).apply({"params": params}, z, method="synthesise")

    z, x_hat = there_and_back(x)
    rows, columns = -height % 4, -width % 4
    assert x_hat.shape == (1, height + rows, width + columns, 3)
    padded = np.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
    np.testing.assert_allclose(x_hat, padded, atol=1e-5)
    gain = step_gain(config.lmbda)
    np.testing.assert_allclose(np.sum(np.square(z)), gain**2 * np.sum(np.square(padded - 0.5)), rtol=1e-4)


def test_the_linear_path_overlaps():
    """z_1 is the basis of the prefiltered photo; the picture of z_1 is postfiltered."""
    config, params = linear_model()
    x, gain, basis = photos(1, 12, 16, 3), step_gain(config.lmbda), params["analysis_basis"] / np.float32(48**0.5)
    (z,) = NestedLatentModel(config).apply({"params": params}, x, method="infer")
    blocks = space_to_depth(np.asarray(prefilter(x - np.float32(0.5), 4)), 4)
    np.testing.assert_allclose(z, gain * (blocks @ basis), rtol=1e-4, atol=1e-4)
    some = np.where(photos(*z.shape) < 0.2, np.asarray(z), np.float32(0))
    x_hat = NestedLatentModel(config).apply({"params": params}, some, method="synthesise")
    drawn = postfilter(depth_to_space(some / np.float32(gain) @ basis.T, 4), 4)
    np.testing.assert_allclose(x_hat, drawn + np.float32(0.5), atol=1e-5)


# --- One training pass ---

PASSES = {
    1: {"prior": "factorized", "activation": "gdn", "linear_path": False, "quantization": "noise"},
    2: {"prior": "trainable-logistic", "conditional": "gaussian", "dims": "tapered"},
    5: {"prior": "logistic", "conditional": "laplace", "quantization": "noise"},
}
DEAD = {1: {"log_scale_1"}, 2: set(), 5: set()}
"""Parameters of each of these models that change nothing: the factorised prior has its own scales."""
PHOTOS = np.repeat(photos(1, 18, 13, 3), 2, axis=0)  # one twice; neither side a multiple of a stride


def by_hand(config, params, x, key):
    """(bits of each level and photo, x_hat) from the definition of the chain."""
    model, params = NestedLatentModel(config), {"params": params}
    latents = model.apply(params, x, method="infer")
    bits, given = [], None
    for level in range(config.L, 0, -1):
        z = latents[level - 1]
        noisy = add_uniform_noise(jax.random.fold_in(key, level), z)
        prior = model.apply(params, level, given, z.shape[1:3], method="conditional")
        bits.append(jnp.sum(prior.coded_bits(noisy), axis=(1, 2, 3)))
        # Mixed quantisation gives the level below, and the pixels, exactly what the decoder will have.
        mean = 0.0 if isinstance(prior, Factorized) else prior.mean
        given = noisy if config.quantization == "noise" else bin_uniform(z, mean)
    return tuple(bits[::-1]), model.apply(params, given, method="synthesise")[:, : x.shape[1], : x.shape[2]]


@pytest.fixture(scope="module", params=PASSES, ids="L={}".format)
def one_pass(request):
    """(config, params, run); run(params, key) gives (gradients, output), compiled once."""
    config = small(request.param, **PASSES[request.param])

    @jax.jit
    def run(params, key):
        def loss(params):
            output = NestedLatentModel(config).apply({"params": params}, PHOTOS, key)
            return rate_distortion(config, output, PHOTOS)[0], output

        return jax.grad(loss, has_aux=True)(params)

    return config, random_params(config), run


def test_bits_and_reconstruction_follow_the_definition(one_pass):
    config, params, run = one_pass
    _, output = run(params, KEY)
    assert len(output.bits) == config.L
    bits, x_hat = jax.jit(by_hand, static_argnums=0)(config, params, PHOTOS, KEY)
    for ours, expected in zip(output.bits, bits, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
        assert np.all(np.asarray(ours) > 0)
    np.testing.assert_allclose(output.x_hat, x_hat, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_and_reach_every_parameter(one_pass):
    config, params, run = one_pass
    leaves, _ = jax.tree.flatten_with_path(run(params, KEY)[0])
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if not np.all(np.isfinite(leaf))] == []
    dead = {jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in leaves if not np.any(leaf)}
    assert dead == DEAD[config.L]


def test_noise_depends_on_the_key_and_differs_between_photos(one_pass):
    config, params, run = one_pass
    first, again, other = (run(params, key)[1] for key in (KEY, KEY, jax.random.key(1)))
    for level in range(config.L):
        np.testing.assert_array_equal(first.bits[level], again.bits[level])
        assert np.all(np.asarray(first.bits[level] != other.bits[level]))
        assert first.bits[level][0] != first.bits[level][1]
    np.testing.assert_array_equal(first.x_hat, again.x_hat)

"""What p(z_1 | z_2) is given of z_1: in the order of decoding, the oracle's integers, and the Flax model's numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import Oracle
from random_models import random_params

from nlvc.config import ConfigError, tiny
from nlvc.models import context, frozen
from nlvc.models.calibration import Freezer
from nlvc.models.freeze import SCALE_STEP, level_calibrator
from nlvc.models.frozen import MEAN_UNITS, SCALE_UNITS
from nlvc.models.nested import SCALE_MIN, NestedLatentModel, bounded

pytestmark = pytest.mark.usefixtures("quick_compilation")
KINDS = ("spatial", "channel")
RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 6, 9


def config_of(kind, **fields):
    return tiny(**{"L": 2, "context": kind, "channels": 12, "filters": 4, "latent_filters": 6, **fields})


def prior_of(config, params, above, z):
    """p(z_1 | z_2 = above, z_1 decoded before = z)."""
    return NestedLatentModel(config).apply(
        {"params": params}, 1, above, z.shape[1:3], None, lambda _: z, method="conditional"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 4), (8, 30)])
def test_everything_is_decoded_once(kind, height, width):
    count = np.zeros((height, width, 12), int)
    for place in context.order(config_of(kind), height, width):
        count[place] += 1
    np.testing.assert_array_equal(count, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_depends_on_what_is_decoded_before(kind):
    """What is not yet decoded may be anything; and what is decoded does matter."""
    config = config_of(kind)
    params, above = random_params(config), RNG.normal(0, 2, (1, 3, 3, 12)).astype(np.float32)
    prior = jax.jit(lambda z: prior_of(config, params, above, z))
    z = RNG.normal(0, 3, (1, HEIGHT, WIDTH, 12)).astype(np.float32)
    expected, decoded, matters = prior(z), np.zeros_like(z), 0
    for place in context.order(config, HEIGHT, WIDTH):
        found = prior(decoded)
        for ours, all_of_it in ((found.mean, expected.mean), (found.scale, expected.scale)):
            np.testing.assert_allclose(ours[0][place], all_of_it[0][place], rtol=1e-4, atol=1e-4)
        matters += np.any(np.abs(prior(np.zeros_like(z)).mean - found.mean)[0][place] > 1e-3)
        decoded[0][place] = z[0][place]
    assert matters > 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_model_without(kind):
    config, key, x = config_of(kind), jax.random.key(1), jnp.asarray(RNG.random((2, 64, 64, 3)), jnp.float32)
    model = NestedLatentModel(config)
    params = jax.jit(model.init)(key, x, key)["params"]
    plain = {name: value for name, value in params.items() if not name.startswith("contexts_")}
    assert len(params) - len(plain) == (1 if kind == "spatial" else context.SLICES)
    ours, other = (
        jax.jit(lambda p, m=m: (m.apply({"params": p}, x, key), m.apply({"params": p}, x, method="binned")))(p)
        for m, p in ((model, params), (NestedLatentModel(config_of("none")), plain))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, other)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    config, key, x = config_of(kind), jax.random.key(1), jnp.asarray(RNG.random((2, 64, 64, 3)), jnp.float32)
    model, params = NestedLatentModel(config), random_params(config)
    bits = lambda p: sum(map(jnp.sum, model.apply({"params": p}, x, key).bits))  # noqa: E731
    for name, network in jax.jit(jax.grad(bits))(params).items():
        if name.startswith("contexts_"):
            assert all(np.any(leaf != 0) and np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(network)), name


def of_the_frozen(a, config, above, decoded):
    """(means, log scales) of z_1 in units, by any arithmetic."""
    *networks, streams = context.hyper(a, config, above)
    cut = frozen.level_margins(config, 1)[1] + 1
    more = [
        context.changes(a, config, part, frozen.crop(stream, cut), decoded[..., : context.seen(config, part)])
        for part, stream in enumerate(streams)
    ]
    means, scales = zip(*(np.split(np.asarray(x), 2, axis=-1) for x in more), strict=True)
    mean, log_scale = (np.asarray(x) for x in frozen.level_parameters(config, 1, *networks))
    return mean + np.concatenate(means, -1), log_scale + np.concatenate(scales, -1)


@pytest.fixture(scope="module", params=KINDS)
def networks(request):
    """(config, parameters, calibrator, arrays, z_2 with its margin, z_1 with its) in units."""
    config = config_of(request.param, strides=(16, 1))
    params, margin = random_params(config), frozen.level_margins(config, 1)[0]
    above = MEAN_UNITS * RNG.integers(-2, 3, (1, 12 + 2 * margin, 12 + 2 * margin, 12))
    z = MEAN_UNITS * RNG.integers(-2, 3, (1, 12, 12, 12))
    decoded = np.pad(z, ((0, 0), (context.REACH,) * 2, (context.REACH,) * 2, (0, 0)))
    calibrator = level_calibrator(config, params, 1)
    of_the_frozen(calibrator, config, above, decoded)
    freezer = Freezer(calibrator)
    *_, streams = context.hyper(freezer, config, None)
    for part, stream in enumerate(streams):
        context.changes(freezer, config, part, stream, None)
    return config, params, calibrator, freezer.arrays, above, decoded


def test_the_oracle_agrees_number_by_number(networks):
    config, _, _, arrays, above, decoded = networks
    for size in (1, 300):  # also where everything is cut
        exact = of_the_frozen(frozen.Exact(arrays), config, *(np.int32(size * v) for v in (above, decoded)))
        oracle = of_the_frozen(Oracle(arrays), config, size * above, size * decoded)
        for ours, other in zip(exact, oracle, strict=True):
            np.testing.assert_array_equal(ours, other)


def test_it_is_the_flax_model(networks):
    config, params, calibrator, arrays, above, decoded = networks
    margin, reach = frozen.level_margins(config, 1)[0], context.REACH
    bins = jnp.asarray(decoded[:, reach:-reach, reach:-reach] / MEAN_UNITS, jnp.float32)
    expected = prior_of(config, params, jnp.asarray(frozen.crop(above, margin) / MEAN_UNITS, jnp.float32), bins)
    # Flax continues z_2 by its edge in every layer, the frozen networks see what lies there: they agree inside.
    inside = lambda x: frozen.crop(np.asarray(x), margin)  # noqa: E731
    for a, share in ((calibrator, 1e-3), (frozen.Exact(arrays), 0.2)):
        mean, log_scale = map(inside, of_the_frozen(a, config, above, decoded))
        scale = bounded(log_scale * SCALE_STEP / SCALE_UNITS + math.log(SCALE_MIN))
        for ours, other in ((mean / MEAN_UNITS, expected.mean), (np.log(scale), np.log(expected.scale))):
            other = inside(other)
            assert np.sqrt(np.mean((ours - other) ** 2)) < share * np.std(other)


def test_one_level_has_nothing_to_add_to():
    with pytest.raises(ConfigError, match="context=spatial: is given to p"):
        config_of("spatial", L=1)

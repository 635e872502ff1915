"""How a step is computed, not what: parts of a batch, bfloat16, activations computed again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.config import base, paper, tiny
from nlvc.models import nested
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import NestedLatentModel
from nlvc.models.rates import hats
from nlvc.training.loop import accumulated, create_state, make_train_step

SIZE = {"channels": 6, "filters": 4, "latent_filters": 4, "patch_size": 16, "strides": (4, 2), "batch_size": 4}
CONFIGS = {
    "variable rate": tiny(L=2, rate="variable", **SIZE),
    "networks alone": tiny(L=1, linear_path=False, transform="plain", activation="gdn", **{**SIZE, "strides": (4,)}),
}
KEY = jax.ShapeDtypeStruct((), jax.eval_shape(lambda: jax.random.key(0)).dtype)
PHOTOS = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
LMBDAS = np.float32([0.002, 0.013, 0.05, 0.1])
pytestmark = pytest.mark.usefixtures("quick_compilation")


def shapes(config, x=PHOTOS):
    return jax.eval_shape(NestedLatentModel(config).init, KEY, x, KEY)["params"]


def random_params(config):
    """Numbers of the usual size, so that every layer has something to say."""
    rng = np.random.default_rng(0)
    size = lambda s: 0.1 if len(s.shape) < 2 else (s.shape[-1] / s.size) ** 0.5  # noqa: E731
    return jax.tree.map(lambda s: rng.normal(0, size(s), s.shape).astype(np.float32), shapes(config))


def loss(config):
    """(params, batch, key) -> (loss, metrics)."""
    lmbdas = LMBDAS if config.rate == "variable" else None

    def measure(params, batch, key):
        weights = None if lmbdas is None else hats(lmbdas)
        output = NestedLatentModel(config).apply({"params": params}, batch, key, weights)
        return rate_distortion(config, output, batch, lmbdas)

    return measure


@pytest.fixture(scope="module")
def gradient(batch_at):
    """gradient(name of a config, changes...) -> (metrics, gradients), NumPy arrays, always of the same parameters."""

    @functools.cache
    def compute(name, **changes):
        config = dataclasses.replace(CONFIGS[name], **changes)
        function = jax.jit(jax.value_and_grad(loss(config), has_aux=True))
        (value, metrics), gradients = function(random_params(config), batch_at(0, count=4), jax.random.key(1))
        return jax.device_get(({"loss": value, **metrics}, gradients))

    return compute


def distance(ours, expected):
    """The largest difference of two trees, as a share of the largest number."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True))
    return max(np.max(np.abs(a - b)) for a, b in pairs) / max(np.max(np.abs(b)) for _, b in pairs)


def assert_close(ours, expected, rel):
    assert ours.keys() == expected.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], expected[name], rtol=rel, err_msg=name)


# --- Parts of a batch ---


def test_parts_of_a_batch_add_up_to_the_whole(monkeypatch, batch_at):
    """Without noise, of which each part has its own; with a lambda for each photo."""
    monkeypatch.setattr(nested, "add_uniform_noise", lambda key, z: z)
    config, batch = dataclasses.replace(CONFIGS["variable rate"], optimiser="adam"), batch_at(0, count=4)
    first = jax.device_get(create_state(config, batch_at(0, count=16)))
    results = []
    for parts in (1, 2):
        step = make_train_step(dataclasses.replace(config, accumulate=parts))
        state, metrics = step(jax.tree.map(jnp.array, first), batch)
        # Adam's first moment after a step is a tenth of the gradient.
        results.append(jax.device_get((state.opt_state[1][0].mu, metrics)))
    (whole, expected), (parts, metrics) = results
    assert distance(parts, whole) < 1e-5
    assert_close(metrics, expected, rel=1e-5)


@pytest.mark.parametrize("lmbda", [None, 2.0, np.arange(6.0)], ids=["none", "one", "each"])
def test_parts_are_told_apart(lmbda):
    """What a part is given: every parts-th photo, their lambdas, and a key that no other has."""
    seen = []

    def toy(params, batch, key, lmbda):
        noise = jax.random.uniform(key)
        jax.debug.callback(lambda *values: seen.append(values), batch, noise)
        ratio = 1.0 if lmbda is None else jnp.mean(lmbda)
        return (params * jnp.mean(batch) * ratio, {"noise": noise}), params

    batch = jnp.arange(6.0)
    function = jax.jit(accumulated(toy, 3))
    (value, metrics), gradient = function(jnp.float32(2.0), batch, jax.random.key(3), lmbda)
    jax.effects_barrier()
    assert sorted(tuple(map(float, photos)) for photos, _ in seen) == [(0, 3), (1, 4), (2, 5)]
    noises = {float(noise) for _, noise in seen}
    assert len(noises) == 3
    assert metrics["noise"] == pytest.approx(np.mean(list(noises)))
    means = np.array([1.5, 2.5, 3.5])  # of the photos, and of their lambdas where each has one
    ratios = 1 if lmbda is None else lmbda if np.ndim(lmbda) == 0 else means
    assert value == pytest.approx(np.mean(2 * means * ratios))
    assert gradient == 2


# --- bfloat16 ---


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_is_near_float32(gradient, name):
    metrics, gradients = gradient(name, dtype="bfloat16")
    told, expected = gradient(name)
    assert {leaf.dtype for leaf in jax.tree.leaves((metrics, gradients))} == {np.dtype(np.float32)}
    assert 1e-4 < distance(gradients, expected) < 0.03
    assert metrics["loss"] != told["loss"]
    assert_close(metrics, told, rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_bins_rates_and_pixels_are_made_of_is_float32(name):
    config = dataclasses.replace(CONFIGS[name], dtype="bfloat16")

    def parts(params, x, key):
        model = NestedLatentModel(config).bind({"params": params})
        weights = hats(LMBDAS) if config.rate == "variable" else None
        latents = model.infer(x, weights)
        prior = model.conditional(1, *latents[1:], weights=weights)
        return params, latents, prior.mean, prior.scale, model(x, key, weights), model.synthesise(latents[0], weights)

    found = jax.tree.leaves(jax.eval_shape(parts, shapes(config), PHOTOS, KEY))
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", CONFIGS)
def test_all_layers_but_the_last_are_bfloat16(name):
    def layers(dtype):
        config = dataclasses.replace(CONFIGS[name], dtype=dtype)
        return str(jax.make_jaxpr(loss(config))(shapes(config), PHOTOS, jax.random.key(0))).count(":bf16[4,")

    assert layers("float32") == 0
    assert layers("bfloat16") > 20


def test_the_linear_path_is_untouched(batch_at):
    """Beside networks whose last layers are zero, z_1 is the same to the last bit."""
    config, batch = CONFIGS["variable rate"], batch_at(0, count=4)
    params = random_params(config)
    last = max(name for name in params["analysis"] if name.startswith("Conv"))
    params["analysis"][last] = jax.tree.map(np.zeros_like, params["analysis"][last])
    ours, expected = (
        NestedLatentModel(dataclasses.replace(config, dtype=dtype)).apply(
            {"params": params}, batch, hats(LMBDAS), method="infer"
        )
        for dtype in ("bfloat16", "float32")
    )
    np.testing.assert_array_equal(ours[0], expected[0])
    assert np.any(expected[0] != 0) and np.any(ours[1] != expected[1])


# --- Activations computed again ---


@pytest.mark.parametrize("name", CONFIGS)
def test_activations_computed_again_are_the_same(gradient, name):
    metrics, gradients = gradient(name, remat=True)
    told, expected = gradient(name)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    assert distance(gradients, expected) < 1e-5
    assert_close(metrics, told, rel=1e-5)


@pytest.mark.parametrize("preset", [base, paper])
def test_less_is_kept_for_the_gradient(preset):
    def kept(**changes):
        """Bytes that lie between the pass forward and that backward."""
        config, x = preset(L=2, patch_size=512, **changes), jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
        model = NestedLatentModel(config)
        loss = lambda params, x, key: rate_distortion(config, model.apply({"params": params}, x, key), x)[0]  # noqa: E731
        pull = lambda params, x, key: jax.vjp(lambda params: loss(params, x, key), params)[1]  # noqa: E731
        saved = jax.eval_shape(pull, shapes(config, x), x, KEY)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(saved))

    assert kept(remat=True) < 0.5 * kept()
    assert kept(dtype="bfloat16") < 0.8 * kept()

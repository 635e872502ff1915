"""The encoder's networks without borders: those of the Flax model, wherever no border is near."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.config import tiny
from nlvc.models import inference
from nlvc.models.freeze_encoder import nested_encoder
from nlvc.models.lapped import borders
from nlvc.models.nested import NestedLatentModel, log_gains

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG = np.random.default_rng(0)
SMALL = {"channels": 5, "filters": 4, "latent_filters": 6, "patch_size": 128}
PLAIN = {"transform": "plain", "activation": "gdn", "linear_path": False}
CONFIGS = {
    "residual": tiny(L=3, strides=(16, 2, 1), **SMALL),
    "residual gdn": tiny(L=2, strides=(8, 4), activation="gdn", **SMALL),
    "plain": tiny(L=3, strides=(16, 2, 1), **SMALL, **PLAIN),
    "plain gelu": tiny(L=2, strides=(8, 4), transform="plain", dims="tapered", **SMALL),
    "plain gdn": tiny(L=2, strides=(8, 4), **SMALL, **PLAIN),
}
every_network = pytest.mark.parametrize(
    ("name", "level"), [(name, level) for name, config in CONFIGS.items() for level in range(config.L)]
)


@functools.cache
def network(name, level, basis=1):
    """(config, margin, function of the input with its margin, all of it inside the picture) of random weights."""
    config, weights = CONFIGS[name], weights_of(name)
    if "basis" in weights:
        weights["basis"] = weights["basis"] * np.float32(basis)
    margin = inference.margins(config, level)
    if level == 0:
        return config, margin, jax.jit(lambda x: inference.analysis(weights, config, x, margin, (None, None)))
    return config, margin, jax.jit(lambda z: inference.level_analysis(weights, config, level, z, margin))


@functools.cache
def params_of(name):
    """Every parameter of its usual size, so that each of them matters."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(NestedLatentModel(CONFIGS[name]).init, key, jnp.zeros((1, 128, 128, 3)), key)["params"]
    size = lambda p: (p.shape[-1] / p.size) ** 0.5 if len(p.shape) > 1 else 0.3  # noqa: E731
    params = jax.tree.map(lambda p: RNG.normal(0, size(p), p.shape).astype(np.float32), shapes)
    bases = {name: p * np.float32(len(p) ** 0.5) for name, p in params.items() if name.endswith("basis")}
    return {**params, **bases, "log_gain": params["log_gain"] + log_gains(CONFIGS[name], params["log_gain"].shape)}


def weights_of(name):
    return nested_encoder(CONFIGS[name], params_of(name))


def samples(name, level, height, width):
    """What the network of that level sees: a photo, or latents; two of them, different everywhere."""
    channels = 3 if level == 0 else CONFIGS[name].level_channels[level - 1]
    x = RNG.uniform(size=(2, height, width, channels)).astype(np.float32)
    return x if level == 0 else 20 * (x - 0.5)


def close(actual, expected):
    """Equal up to the order in which floats are summed."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_inside_of_a_photo_is_that_of_the_flax_model(name):
    config = CONFIGS[name]
    x = samples(name, 0, 256, 224)
    model = NestedLatentModel(config)
    latents = jax.jit(lambda params, x: model.apply({"params": params}, x, method="infer"))(params_of(name), x)
    for level, (below, z) in enumerate(zip((x, *latents), latents, strict=False)):
        _, margin, run = network(name, level)
        border = margin // config.level_strides[level]
        inside = np.asarray(z)[:, border:-border, border:-border]
        assert inside.size and np.std(inside) > 0.1
        # The photo's own rim is the margin of what is inside.
        close(run(below), inside)


@every_network
def test_a_part_is_that_part_of_the_whole(name, level):
    """Whatever lies around it, and whatever else is in the batch."""
    config, margin, run = network(name, level)
    stride = config.level_strides[level]
    x = samples(name, level, 7 * stride + 2 * margin, 6 * stride + 2 * margin)
    whole = run(x)
    assert whole.shape == (2, 7, 6, config.level_channels[level])
    part = run(x[:1, 2 * stride : 5 * stride + 2 * margin, stride : 5 * stride + 2 * margin])
    close(part[0], np.asarray(whole)[0, 2:5, 1:5])


@pytest.mark.parametrize("name", ["residual", "plain gelu"])
def test_the_linear_path_is_that_of_the_flax_model_at_the_border_too(name):
    """Nothing is filtered across a photo's border, whatever it is continued by."""
    config, weights = CONFIGS[name], weights_of(name)
    margin, stride = inference.margins(config, 0), config.level_strides[0]
    silent = {"analysis": jax.tree.map(np.zeros_like, params_of(name)["analysis"])}
    x = samples(name, 0, 5 * stride, 4 * stride)
    expected, *_ = NestedLatentModel(config).apply({"params": {**params_of(name), **silent}}, x, method="infer")
    weights = {**weights, "analysis": jax.tree.map(np.zeros_like, weights["analysis"])}
    inside = borders(0, 5, 1, 5), borders(0, 4, 1, 4)
    run = jax.jit(lambda x, inside: inference.analysis(weights, config, x, margin, inside))
    rim = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    close(run(np.pad(x, rim, mode="edge"), inside), expected)
    close(run(np.pad(x, rim, constant_values=7), inside), expected)


@pytest.mark.parametrize("name", ["residual", "plain gelu"])
def test_parts_at_the_border_of_a_photo_are_those_of_the_whole(name):
    config, weights = CONFIGS[name], weights_of(name)
    margin, stride = inference.margins(config, 0), config.level_strides[0]
    x = np.pad(samples(name, 0, 7 * stride, 6 * stride), ((0, 0), *[(margin, margin)] * 2, (0, 0)), mode="edge")
    run = jax.jit(lambda x, inside: inference.analysis(weights, config, x, margin, inside))
    whole = np.asarray(run(x, (borders(0, 7, 1, 7), borders(0, 6, 1, 6))))
    for top, left in [(0, 0), (0, 2), (4, 0), (4, 2), (2, 1)]:
        part = x[:, stride * top :, stride * left :][:, : 3 * stride + 2 * margin, : 4 * stride + 2 * margin]
        inside = borders(top, 3, 1, 7), borders(left, 4, 1, 6)
        close(run(part, inside), whole[:, top : top + 3, left : left + 4])


@every_network
def test_the_margins_are_the_least_there_are(name, level):
    """What lies furthest out in them is seen by the outermost positions, on every side, and by no others."""
    # The linear path sees less far, but says more.
    config, margin, run = network(name, level, basis=0)
    stride = config.level_strides[level]
    x = samples(name, level, 3 * stride + 2 * margin, 3 * stride + 2 * margin)
    before = np.asarray(run(x))
    for turns in range(4):
        turned = np.rot90(x, turns, axes=(1, 2)).copy()
        turned[:, :stride] += 50  # far outside, because little of it arrives
        changed = np.asarray(run(np.rot90(turned, -turns, axes=(1, 2)).copy())) - before
        changed = np.rot90(np.abs(changed), turns, axes=(1, 2)).max(axis=(0, 2, 3))
        assert changed[0] > 1e-4 * np.abs(before).max()
        assert np.all(changed[1:] <= 1e-5 * np.abs(before).max())


@every_network
def test_a_margin_of_one_stride_less_is_refused(name, level):
    config, margin, _ = network(name, level)
    stride = config.level_strides[level]
    weights = weights_of(name)
    of_level = {"level": level} if level else {"inside": (None, None)}
    run = functools.partial(inference.level_analysis if level else inference.analysis, **of_level)
    inputs = {"z" if level else "x": samples(name, level, 3 * stride + 2 * margin, 3 * stride + 2 * margin)}
    assert jax.eval_shape(lambda: run(weights, config, **inputs, margin=margin)).shape[1:3] == (3, 3)
    with pytest.raises(ValueError, match="margin is too small"):
        jax.eval_shape(lambda: run(weights, config, **inputs, margin=margin - stride))

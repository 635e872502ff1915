"""The exact networks: the oracle's integers, whatever surrounds the positions, and close to the float model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import Oracle

from nlvc.config import tiny
from nlvc.models import frozen
from nlvc.models.calibration import Freezer
from nlvc.models.freeze import level_calibrator
from nlvc.models.freeze_encoder import gain_of
from nlvc.models.freeze_transform import synthesis_calibrator
from nlvc.models.lapped import borders, postfilter
from nlvc.models.layers import depth_to_space
from nlvc.models.nested import NestedLatentModel, log_gains

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = tiny(L=3, channels=5, filters=4, latent_filters=6, strides=(16, 2, 1), conditional="laplace", patch_size=64)
RNG = np.random.default_rng(0)


GDN = dataclasses.replace(CONFIG, activation="gdn", transform="plain", linear_path=False)


def params_of(config):
    key = jax.random.key(0)
    shapes = jax.eval_shape(NestedLatentModel(config).init, key, jnp.zeros((1, 64, 64, 3)), key)["params"]
    params = jax.tree.map(lambda s: RNG.normal(0, (s.shape[-1] / s.size) ** 0.5, s.shape).astype(np.float32), shapes)
    # Inverse GDNs one behind the other would grow without end.
    params = jax.tree.map_with_path(lambda path, p: p * (0.1 if "gamma" in str(path) else 1), params)
    bases = {name: p * np.float32(len(p) ** 0.5) for name, p in params.items() if name.endswith("basis")}
    return {**params, **bases, "log_gain": np.asarray(log_gains(config, params["log_gain"].shape))}


def latents(height, width, margin=0, batch=2):
    """Smooth latents in units, int32."""
    z = RNG.normal(0, 40, (batch, height + 2 * margin, width + 2 * margin, 5))
    return np.rint(z).astype(np.int32)


def arrays_of(calibrator, network, z):
    """The frozen network, its ranges measured on z."""
    freezer = Freezer(calibrator)
    network(calibrator, z)
    network(freezer, None)
    return freezer.arrays


@pytest.fixture(scope="module")
def networks():
    """{name: (margin, function of arithmetic, z and borders, arrays)} of one model's networks and others' syntheses."""
    found, params = {}, params_of(CONFIG)
    for level in (1, 2):
        margin, _ = frozen.level_margins(CONFIG, level)

        def run(a, z, inside=None, level=level):
            network = frozen.level_synthesis(a, CONFIG, level, z)
            return jnp.concatenate(frozen.level_parameters(CONFIG, level, *network), -1)

        network = lambda a, z, n=level: frozen.level_synthesis(a, CONFIG, n, z)  # noqa: E731
        arrays = arrays_of(level_calibrator(CONFIG, params, level), network, latents(12, 12, margin))
        found[level] = margin, run, arrays
    refined = dataclasses.replace(CONFIG, activation="gdn")
    residual = dataclasses.replace(CONFIG, linear_path=False)
    residual_gdn = dataclasses.replace(residual, activation="gdn")
    configs = {"refined": CONFIG, "refined gdn": refined, "plain gdn": GDN}
    configs |= {"residual": residual, "residual gdn": residual_gdn}
    for name, config in configs.items():
        margin, _ = frozen.synthesis_margins(config)
        z, params = latents(12, 12, margin), params_of(config)
        network = lambda a, z, c=config: frozen.synthesis(a, c, z)  # noqa: E731
        arrays = arrays_of(synthesis_calibrator(config, params, gain_of(params), z), network, z)

        def run(a, z, inside=(None, None), config=config):
            return frozen.pixels(config, *frozen.synthesis(a, config, z, inside))

        found[name] = margin, run, arrays
    return found


every_network = pytest.mark.parametrize(
    "name", [1, 2, "refined", "refined gdn", "plain gdn", "residual", "residual gdn"]
)


@every_network
def test_the_oracle_agrees_number_by_number(networks, name):
    margin, run, arrays = networks[name]
    z = latents(4, 3, margin) * RNG.integers(1, 400, (2, 1, 1, 1), np.int32)  # also where everything is cut
    exact = jax.jit(lambda z: run(frozen.Exact(arrays), z))(z)
    np.testing.assert_array_equal(exact, run(Oracle(arrays), z))


@every_network
def test_a_part_is_that_part_of_the_whole(networks, name):
    margin, run, arrays = networks[name]
    run = jax.jit(lambda z, run=run: run(frozen.Exact(arrays), z))
    z = latents(7, 6, margin)
    whole = np.asarray(run(z))
    stride = whole.shape[1] // 7
    part = np.asarray(run(z[:1, 2 : 5 + 2 * margin, 1 : 5 + 2 * margin]))
    np.testing.assert_array_equal(part[0], whole[0, 2 * stride : 5 * stride, stride : 5 * stride])


LAPPED = ["refined", "refined gdn"]


def masks(height, width, margin):
    """Some borders between rows, and between columns, are filtered and some are not."""
    return tuple(np.arange(side + 2 * margin - 1) % 3 != 1 for side in (height, width))


@pytest.mark.parametrize("name", LAPPED)
def test_the_oracle_agrees_on_borders_that_are_left_out(networks, name):
    margin, run, arrays = networks[name]
    z = latents(4, 3, margin) * RNG.integers(1, 400, (2, 1, 1, 1), np.int32)
    inside = masks(4, 3, margin)
    exact = jax.jit(lambda z, inside: run(frozen.Exact(arrays), z, inside))
    np.testing.assert_array_equal(exact(z, inside), run(Oracle(arrays), z, inside))
    everywhere = exact(z, tuple(np.ones_like(some) for some in inside))
    np.testing.assert_array_equal(everywhere, run(Oracle(arrays), z))
    assert np.any(everywhere != exact(z, inside))


@pytest.mark.parametrize("name", LAPPED)
def test_parts_at_the_border_of_a_picture_are_those_of_the_whole(networks, name):
    """Whatever lies outside, because nothing is filtered across that border but what a network sees of it."""
    margin, run, arrays = networks[name]
    run = jax.jit(lambda z, inside, run=run: run(frozen.Exact(arrays), z, inside))
    height, width = 7, 6
    z = np.pad(latents(height, width), ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    whole = np.asarray(run(z, (borders(0, height, margin, height), borders(0, width, margin, width))))
    stride = whole.shape[1] // height
    for top, left in [(0, 0), (0, 2), (4, 0), (4, 2), (2, 1)]:
        part = z[:, top : top + 3 + 2 * margin, left : left + 4 + 2 * margin]
        inside = borders(top, 3, margin, height), borders(left, 4, margin, width)
        expected = whole[:, stride * top : stride * (top + 3), stride * left : stride * (left + 4)]
        np.testing.assert_array_equal(run(part, inside), expected)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_the_margin_of_a_refinement_is_the_least_there_is(stride):
    """What lies furthest out in it is still seen, through the overlap of the blocks."""
    config = dataclasses.replace(CONFIG, strides=(stride, 2, 1), patch_size=128)
    margin, _ = frozen.synthesis_margins(config)
    params = params_of(config)
    a = synthesis_calibrator(config, params, gain_of(params), None)

    def levels(z):
        return np.asarray(frozen.grey_levels(config, *frozen.synthesis(a, config, z)))

    z = latents(2, 2, margin, batch=1)
    before = levels(z)
    assert before.shape == (1, 2 * stride, 2 * stride, 3)
    for rim in (np.s_[:, :1], np.s_[:, -1:], np.s_[:, :, :1], np.s_[:, :, -1:]):
        changed = z.copy()
        changed[rim] += 5000
        assert np.any(levels(changed) != before)


@pytest.mark.parametrize("name", LAPPED)
def test_integers_follow_the_float_filter(networks, name):
    """The linear path's picture is that of `lapped.postfilter`, to a twentieth of a grey level."""
    config, (margin, _, arrays) = CONFIG, networks[name]
    z = latents(4, 3, margin)
    a = frozen.Exact(arrays)
    blocks = jax.jit(lambda z: a.linear("basis", z))(z)
    inside = masks(4, 3, margin)
    ours = jax.jit(lambda x, inside: a.lap("lap", x, config.level_strides[0], inside))(blocks, inside)
    picture = depth_to_space(np.asarray(blocks, np.float32), config.level_strides[0])
    theirs = postfilter(picture, config.level_strides[0], inside)
    # Halves are rounded after the rows and after the columns, and so are the turned differences.
    assert np.abs(ours - theirs).max() <= frozen.PIXEL_UNITS / 20
    assert np.abs(np.mean(ours - theirs)) < 0.3
    assert np.std(picture) > 4 * frozen.PIXEL_UNITS

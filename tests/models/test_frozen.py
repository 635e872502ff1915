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
from nlvc.models.freeze import Rate, level_calibrator, synthesis_calibrator
from nlvc.models.nested import NestedLatentModel

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = tiny(L=3, channels=5, filters=4, latent_filters=6, strides=(16, 2, 1), conditional="laplace", patch_size=64)
RNG = np.random.default_rng(0)


GDN = dataclasses.replace(CONFIG, activation="gdn", transform="plain", linear_path=False)


def params_of(config):
    key = jax.random.key(0)
    shapes = jax.eval_shape(NestedLatentModel(config).init, key, jnp.zeros((1, 64, 64, 3)), key)["params"]
    params = jax.tree.map(lambda s: RNG.normal(0, (s.shape[-1] / s.size) ** 0.5, s.shape).astype(np.float32), shapes)
    # Inverse GDNs one behind the other would grow without end.
    return jax.tree.map_with_path(lambda path, p: p * (0.1 if "gamma" in str(path) else 1), params)


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
    """{name: (margin, function of arithmetic and z, arrays)} of the networks of one model and the GDN of another."""
    found, params = {}, params_of(CONFIG)
    for level in (1, 2):
        margin, _ = frozen.level_margins(CONFIG, level)

        def run(a, z, level=level):
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
        z, rate = latents(12, 12, margin), Rate(params_of(config), np.full(5, NestedLatentModel(config).gain))
        network = lambda a, z, c=config: frozen.synthesis(a, c, z)  # noqa: E731
        arrays = arrays_of(synthesis_calibrator(config, rate, rate.gain, z), network, z)
        run = lambda a, z, c=config: frozen.pixels(c, *frozen.synthesis(a, c, z))  # noqa: E731
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

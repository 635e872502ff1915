"""The energies of a level, told by the level above it."""

import jax
import numpy as np
import pytest

from nlvc.models.energy import EnergyPath
from nlvc.models.layers import ENERGY_FLOOR as FLOOR
from nlvc.models.layers import log_energy

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_log_energy_is_the_logarithm_of_each_blocks_root_mean_square(stride):
    z = RNG.normal(0, 5, (2, 2 * stride, 3 * stride, 4)).astype(np.float32)
    energies = np.asarray(log_energy(z, stride))
    assert energies.shape == (2, 2, 3, 4)
    block = z[1, stride : 2 * stride, 2 * stride :, 3]
    np.testing.assert_allclose(energies[1, 1, 2, 3], np.log(np.sqrt(np.mean(block**2) + FLOOR**2)), rtol=1e-5)


def test_edges_are_continued():
    z = RNG.normal(size=(1, 3, 5, 2)).astype(np.float32)
    whole = np.pad(z, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    np.testing.assert_allclose(log_energy(z, 2), log_energy(whole, 2), rtol=1e-6)


def test_nothing_at_all_has_a_finite_energy_and_gradient():
    z = np.zeros((1, 2, 2, 1), np.float32)
    value, gradient = jax.value_and_grad(lambda z: log_energy(z, 2).sum())(z)
    np.testing.assert_allclose(value, np.log(FLOOR), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)


def test_the_path_is_silent_until_it_is_started():
    module = EnergyPath(stride=2, below=3, above=2)
    z = np.ones((1, 4, 4, 3), np.float32)
    params = module.init(jax.random.key(0), z, method="analyse")["params"]
    assert {name: value.shape for name, value in params.items()} == {
        "analysis": (3, 2), "bias": (2,), "synthesis": (2, 3)
    }  # fmt: skip
    assert not np.any(module.apply({"params": params}, z, method="analyse"))
    change = module.apply({"params": params}, np.ones((1, 2, 2, 2), np.float32), method="synthesise")
    assert change.shape == (1, 4, 4, 3) and not np.any(change)


def test_each_position_speaks_of_its_own_block_only():
    module = EnergyPath(stride=2, below=3, above=2)
    params = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in
              {"analysis": (3, 2), "bias": (2,), "synthesis": (2, 3)}.items()}  # fmt: skip
    z = RNG.normal(size=(1, 4, 6, 3)).astype(np.float32)
    other = z.copy()
    other[:, 2:, 4:] += 1
    run = lambda z: np.asarray(module.apply({"params": params}, z, method="analyse"))  # noqa: E731
    assert np.argwhere(np.any(run(z) != run(other), axis=-1)).tolist() == [[0, 1, 2]]
    above = np.zeros((1, 2, 3, 2), np.float32)
    above[:, 1, 2] = 1
    change = np.any(module.apply({"params": params}, above, method="synthesise"), axis=-1)
    assert np.argwhere(change).tolist() == [[0, row, column] for row in (2, 3) for column in (4, 5)]

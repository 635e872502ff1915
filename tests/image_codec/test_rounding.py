"""The bin that is written: of the nearest and the next one towards the mean, the cheaper."""

import numpy as np
import pytest

from nlvc import coding
from nlvc.config import tiny
from nlvc.image_codec.rounding import CAUTION, cheapest, distortion_weight, nearest
from nlvc.models.rates import lmbda_of

TABLES = coding.scale_tables("gaussian")
RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, 64, (9, 8, 5))
OFFSETS = (RNG.standard_t(3, INDICES.shape) * (0.3 + 0.2 * INDICES)).astype(np.float32)


def costs(symbols, weight):
    return coding.ideal_bits(TABLES, symbols, INDICES) + CAUTION * weight * (OFFSETS - symbols) ** 2


@pytest.mark.parametrize("weight", [0.5, 8.7, 40.0])
def test_it_is_the_cheaper_of_the_two(weight):
    symbols, weights = nearest(OFFSETS), np.full(5, weight)
    lower = symbols - np.sign(symbols)
    expected = np.where(costs(lower, weight) < costs(symbols, weight), lower, symbols)
    found = cheapest(OFFSETS, TABLES, INDICES, weights)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32 and np.any(found != symbols)


def test_each_channel_has_its_own_weight():
    weights = np.array([1e9, 1e9, 0.0, 1e9, 1e9])
    found, symbols = cheapest(OFFSETS, TABLES, INDICES, weights), nearest(OFFSETS)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[..., others], symbols[..., others])
    assert np.all(np.abs(found[..., 2]) <= np.abs(symbols[..., 2])) and np.any(found[..., 2] != symbols[..., 2])


def test_what_is_near_the_mean_stays_there():
    offsets = RNG.uniform(-0.499, 0.499, OFFSETS.shape).astype(np.float32)
    assert not np.any(cheapest(offsets, TABLES, INDICES, np.full(5, 3.0)))


def test_the_weight_is_that_of_the_samples():
    """A squared bin is 1/gain^2 of a sample's squared error in [0, 1], of which a pixel has three."""
    gain = np.array([1.0, 2.0])
    one = distortion_weight(tiny(lmbda=0.01), None, gain)
    np.testing.assert_allclose(one[0], 4 * one[1])
    np.testing.assert_allclose(distortion_weight(tiny(lmbda=0.02), None, gain), 2 * one)
    variable = distortion_weight(tiny(rate="variable", lmbda=0.01), 40, gain)
    np.testing.assert_allclose(variable, one * lmbda_of(40) / 0.01)


@pytest.mark.parametrize("flags", [{"linear_path": False}, {"distortion": "ms-ssim", "patch_size": 176}])
def test_without_an_orthonormal_path_nothing_is_weighed(flags):
    assert distortion_weight(tiny(**flags), None, np.ones(3)) is None

"""Kernels of integers whose errors cancel on what they see."""

import numpy as np
import pytest

from nlvc.models.calibration import convolved
from nlvc.models.compensate import compensated, moments

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def kernel():
    return RNG.normal(0, 40, (3, 3, 5, 6)).clip(-127, 127)


@pytest.fixture(scope="module")
def grey():
    """Like grey levels: every channel shows the same brightness, each by its own amount, and a little of its own."""
    brightness = RNG.normal(3, 1, (4, 1, 1, 1)) * [1, 0.5, -2, 1, 3]
    return (brightness + RNG.normal(0, 0.2, (4, 40, 40, 5))).astype(np.float32)


def error(kernel, integers, x):
    return np.sqrt(np.mean(np.square(convolved(x, (integers - kernel).astype(np.float32), np.zeros(6), 1))))


def test_errors_cancel_on_inputs_that_go_together(kernel, grey):
    # Measured on some photos, and felt by others.
    integers = compensated(kernel, moments(grey[:3], 3))
    assert error(kernel, integers, grey[3:]) < error(kernel, np.rint(kernel), grey[3:]) / 4


def test_nothing_leaves_int8(grey):
    edge = np.full((3, 3, 5, 6), 126.6) * np.sign(RNG.normal(size=(3, 3, 5, 6)))
    integers = compensated(edge, moments(grey, 3))
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == 127


@pytest.mark.parametrize("power", [0, 1e-6, 1, 1e9])
def test_of_white_inputs_they_are_the_nearest(kernel, power):
    np.testing.assert_array_equal(compensated(kernel, power * np.eye(45)), np.rint(kernel))


def test_moments_are_those_of_every_second_patch(grey):
    places = [(i, j) for i in range(0, 38, 2) for j in range(0, 38, 2)]
    patches = np.array([photo[i : i + 3, j : j + 3].ravel() for photo in grey for i, j in places])
    np.testing.assert_allclose(moments(grey, 3), patches.T @ patches, rtol=1e-4)

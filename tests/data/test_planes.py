"""Floats to pixels; whole pictures go through tests/test_image_codec.py."""

import numpy as np
import pytest

from nlvc.data.planes import to_pixels


def test_pixels_are_rounded_and_clipped():
    x = np.array([[[-1, 0.499 / 255, 0.501 / 255], [0.5, 254.6 / 255, 7]]], np.float32)
    np.testing.assert_array_equal(to_pixels(x, "RGB"), [[[0, 0, 1], [128, 255, 255]]])
    np.testing.assert_array_equal(to_pixels(x, "L"), [[0, 212]])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_that_are_not_finite_are_still_pixels(mode):
    x = np.array([[[np.inf, -np.inf, np.nan], [3e38, 3e38, 3e38], [-np.inf, np.nan, np.nan]]], np.float32)
    expected = np.array([[[255, 0, 0], [255, 255, 255], [0, 0, 0]]])
    np.testing.assert_array_equal(to_pixels(x, mode), expected if mode == "RGB" else expected.mean(axis=2))

"""Better symbols of z_1 by what they do to the picture: fewer bits or less error, and files like all others."""

import math

import numpy as np
import pytest
import skimage.data

import nlvc
from nlvc import coding
from nlvc.image_codec.coder import decode, encode, reconstruct
from nlvc.image_codec.rounding import CURVATURE, error_worth, improved
from nlvc.image_codec.tiles import Box, Grid, around
from nlvc.models import frozen

PHOTO = skimage.data.chelsea()[60:190, 110:275]
FIELDS = {"L": 2, "prior": "trainable-logistic", "channels": 12}
RNG = np.random.default_rng(0)


def lagrangian(model, photo, effort):
    """In bits, by the integer tables."""
    coded = nlvc.image_codec.analyse(photo, model=model, effort=effort)
    error = np.sum((coded.reconstruction.astype(float) - photo) ** 2)
    return sum(bits.sum() for bits in coded.level_bits) + error_worth(model.config, model.quality) * error


@pytest.mark.parametrize("rate", ["fixed", "variable"])
def test_it_gains(untrained, rate):
    model = untrained(rate=rate, **FIELDS)
    none, once, often = (lagrangian(model, PHOTO, effort) for effort in (0, 1, 4))
    assert once < 0.999 * none and often < once


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 130), (70, 95)])
def test_files_decode_as_ever(untrained, height, width):
    model, photo = untrained(**FIELDS), PHOTO[:height, :width]
    data = nlvc.compress(photo, model=model, effort=2, verify=True)
    assert nlvc.decompress(data, model=model).shape == photo.shape


def test_grey_and_alpha(untrained):
    model = untrained(**FIELDS)
    for photo in (PHOTO[..., 0], np.dstack([PHOTO, PHOTO[..., 0]])):
        data = nlvc.compress(photo, model=model, effort=1, verify=True)
        assert nlvc.decompress(data, model=model).shape == photo.shape


def test_several_tiles(untrained):
    model, (height, width) = untrained(**FIELDS), PHOTO.shape[:2]
    grid, whole = Grid(model.config, height, width, 64), Box(0, 0, height, width)
    streams, z = encode(model, grid, PHOTO, effort=2)
    again = decode(model, grid, lambda level, tile: streams[level - 1][tile], whole)
    np.testing.assert_array_equal(again, reconstruct(model, grid, z, whole))


def test_tiles_see_the_same_gradient_as_the_whole(untrained):
    model, (height, width) = untrained(**FIELDS), PHOTO.shape[:2]
    one, many = Grid(model.config, height, width, 1 << 16), Grid(model.config, height, width, 64)
    _, z = encode(model, one, PHOTO)
    margin = 2 * frozen.synthesis_margins(model.config)[0]
    error, whole = model.error(one, around(z, one.compiled(one.box(1, 0), 1), margin), PHOTO, one.box(1, 0))
    decoded = reconstruct(model, one, z, Box(0, 0, height, width))
    exact = error_worth(model.config, model.quality) * np.sum((decoded.astype(float) - PHOTO) ** 2)
    assert error == pytest.approx(exact, rel=0.05)
    for tile in range(math.prod(many.tiles)):
        box = many.box(1, tile)
        _, part = model.error(many, around(z, many.compiled(box, 1), margin), PHOTO, box)
        np.testing.assert_allclose(part, box.of(whole), rtol=1e-3, atol=1e-3 * np.std(whole))


def test_models_without_a_linear_path_stay_as_they_are(untrained):
    model = untrained(L=1, linear_path=False)
    photo = PHOTO[:40, :50]
    assert nlvc.compress(photo, model=model, effort=3) == nlvc.compress(photo, model=model)


def test_each_symbol_is_the_best_of_three():
    tables = coding.scale_tables("gaussian")
    indices = RNG.integers(0, 64, (9, 8, 5))
    symbols = np.rint(RNG.normal(0, 0.1 + 0.1 * indices)).astype(np.int32)
    gradient, weight = RNG.normal(0, 8, symbols.shape), RNG.uniform(2, 9, 5)
    found = improved(symbols, gradient, tables, indices, weight)
    costs = [coding.ideal_bits(tables, symbols + step, indices) + step * gradient + step**2 * CURVATURE * weight
             for step in (-1, 0, 1)]  # fmt: skip
    np.testing.assert_array_equal(found - symbols, np.argmin(costs, axis=0) - 1)
    assert found.dtype == np.int32 and {-1, 0, 1} == set(np.unique(found - symbols))

"""Blocks overlap across the borders of tiles as they do inside them, and not across the border of the picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

import nlvc
from nlvc.config import tiny
from nlvc.image_codec import Model
from nlvc.image_codec.coder import decode, encode, reconstruct
from nlvc.image_codec.freezing import freeze_model
from nlvc.image_codec.tiles import Box, Grid, around
from nlvc.models import frozen
from nlvc.models.nested import NestedLatentModel, log_gains
from nlvc.models.start import cosine_basis

PHOTO = skimage.data.chelsea()
# Bins as wide as a grey level.
LINEAR = tiny(L=1, strides=(8,), channels=192, filters=4, latent_filters=4, patch_size=32, lmbda=20.0,
              prior="trainable-logistic")  # fmt: skip


def crop_of(height, width):
    return PHOTO[60 : 60 + height, 110 : 110 + width]


@pytest.fixture(scope="module")
def linear():
    """A frozen model whose networks are silent, so that pictures are drawn by the linear path, with all components."""
    key, crops = jax.random.key(0), np.float32(PHOTO[None, :256, :256]) / 255
    shapes = jax.eval_shape(NestedLatentModel(LINEAR).init, key, jnp.zeros((1, 32, 32, 3)), key)["params"]
    params = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    basis = cosine_basis(crops, 8, 192) * np.float32(192**0.5)
    params |= {"analysis_basis": basis, "synthesis_basis": basis, "log_scale_1": np.full(192, 3, np.float32)}
    params["log_gain"] = np.asarray(log_gains(LINEAR, (192,)))
    return Model(LINEAR, freeze_model(LINEAR, params, crops), "0" * 16)


@pytest.fixture
def models(linear, untrained):
    """One that draws sharp pictures, one whose networks say something, and one of few pixels a block."""
    return linear, untrained(L=3, prior="factorized"), untrained(L=2, strides=(4, 2))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 83), (8, 40), (7, 3), (1, 1), (1, 50)])
def test_nothing_is_to_be_seen_at_the_border_of_a_picture(linear, height, width):
    photo = crop_of(height, width)
    again = nlvc.decompress(nlvc.compress(photo, model=linear), model=linear)
    errors = np.abs(again.astype(int) - photo)
    assert errors.max() <= 2
    for rim in (errors[:1], errors[-1:], errors[:, :1], errors[:, -1:]):
        assert np.mean(rim**2) < 0.5
    assert np.mean(errors**2) < 0.25


@pytest.mark.parametrize("tile", [16, 32])
def test_nothing_is_to_be_seen_at_the_borders_of_tiles(linear, tile):
    photo = crop_of(61, 83)
    grid = Grid(LINEAR, 61, 83, tile)
    streams, _ = encode(linear, grid, photo)
    again = decode(linear, grid, lambda level, number: streams[level - 1][number], Box(0, 0, 61, 83))
    errors = (again.astype(int) - photo) ** 2
    lines = np.arange(tile, 61, tile)
    beside = np.mean([errors[line + step] for line in lines for step in (-1, 0)])
    assert beside < 0.3 and errors.max() <= 4


SIZES = [(70, 95), (64, 128), (33, 130), (130, 20)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_many_tiles_are_coded_as_one(models, height, width):
    """z_1 of every tile is that of the whole photo, but for the order in which floats are summed."""
    photo = crop_of(height, width)
    for model in models:
        one, many = Grid(model.config, height, width, 1 << 16), Grid(model.config, height, width, 64)
        whole = model.infer(one, 1, photo, one.box(1, 0))
        assert np.std(whole) > 0.5
        for tile in range(many.tiles[0] * many.tiles[1]):
            box = many.box(1, tile)
            z, expected = model.infer(many, 1, photo, box), box.of(whole)
            np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_many_tiles_are_decoded_as_one(models, height, width):
    photo, whole = crop_of(height, width), Box(0, 0, height, width)
    for model in models:
        one, many = Grid(model.config, height, width, 1 << 16), Grid(model.config, height, width, 64)
        assert many.tiles[0] * many.tiles[1] > 1
        streams, units = encode(model, many, photo)
        stream = lambda level, tile, streams=streams: streams[level - 1][tile]  # noqa: E731
        expected = reconstruct(model, one, units, whole)
        np.testing.assert_array_equal(decode(model, many, stream, whole), expected)
        # A region that lies in several tiles.
        region = Box(height // 3, width // 3, height // 2, width // 2)
        np.testing.assert_array_equal(decode(model, many, stream, region), region.of(expected))


def test_it_would_be_seen_if_tiles_ended_at_their_borders(models):
    """The two tests before this one look at something: without the border between them, tiles are others."""
    photo = crop_of(70, 95)
    for model in models:
        grid = Grid(model.config, 70, 95, 64)
        _, units = encode(model, grid, photo)
        whole, (margin, _) = grid.compiled(grid.box(1, 0), 1), frozen.synthesis_margins(model.config)
        z, inside = around(units, whole, margin), grid.borders(whole, margin)
        last = margin + 64 // grid.stride(1) - 1
        cut = tuple(some & (np.arange(len(some)) != last) for some in inside)
        assert inside[0][last] and inside[1][last]
        changed = np.subtract(*(np.asarray(model._synthesise(z, some))[0].astype(int) for some in (inside, cut)))
        for line in (changed[63], changed[64], changed[:, 63], changed[:, 64]):
            assert np.abs(line).max() > 2

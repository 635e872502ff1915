"""Models with a context, coded and decoded step by step."""

import numpy as np
import pytest
import skimage.data

import nlvc
from nlvc import coding
from nlvc.image_codec import CodecError, analyse, salvage
from nlvc.image_codec.coder import decode, encode, reconstruct
from nlvc.image_codec.tiles import Box, Grid

PHOTO = skimage.data.chelsea()[60:190, 110:275]
KINDS = pytest.mark.parametrize("kind", ["spatial", "channel"])


@pytest.fixture
def model(untrained):
    return lambda kind, **fields: untrained(**{"L": 2, "context": kind, "channels": 12, **fields})


@KINDS
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 130), (130, 165)])
def test_there_and_back(model, kind, height, width):
    photo = PHOTO[:height, :width]
    coded = analyse(photo, model=model(kind))
    np.testing.assert_array_equal(nlvc.decompress(coded.data, model=model(kind)), coded.reconstruction)


@KINDS
@pytest.mark.parametrize("fields", [{"L": 3, "rate": "variable"}, {"linear_path": False, "dims": "tapered"}], ids=str)
def test_every_kind(model, kind, fields):
    data = nlvc.compress(PHOTO, model=model(kind, **fields), verify=True)
    assert nlvc.decompress(data, model=model(kind, **fields)).shape == PHOTO.shape


@KINDS
def test_tiles_are_decoded_alone(model, kind):
    model, (height, width) = model(kind), PHOTO.shape[:2]
    grid, whole = Grid(model.config, height, width, 64), Box(0, 0, height, width)
    streams, z = encode(model, grid, PHOTO)
    read = []

    def stream(level, tile):
        read.append((level, tile))
        return streams[level - 1][tile]

    np.testing.assert_array_equal(decode(model, grid, stream, whole), reconstruct(model, grid, z, whole))
    read.clear()
    corner = Box(0, 0, 8, 8)
    np.testing.assert_array_equal(decode(model, grid, stream, corner), reconstruct(model, grid, z, corner))
    assert len(read) < grid.tiles[0] * grid.tiles[1] * model.config.L


@KINDS
def test_the_file_is_what_its_bits_say(model, kind):
    coded = analyse(PHOTO, model=model(kind))
    bits = sum(bits.sum() for bits in coded.level_bits)
    assert bits / 8 < len(coded.data) < bits / 8 + 150


@KINDS
def test_a_damaged_message_is_lost_alone(model, kind):
    model = model(kind)
    file = coding.unpack(nlvc.compress(PHOTO, model=model))
    streams = [[file.stream(level, 0)] for level in (1, 2)]
    streams[0] = [streams[0][0][:-8]]
    data = coding.pack(file.header, streams, {})
    with pytest.raises(ValueError):
        nlvc.decompress(data, model=model)
    pixels, lost = salvage(data, model=model)
    assert pixels.shape == PHOTO.shape and list(lost) == ["z_1 of tile 0"]


@KINDS
def test_no_effort(model, kind):
    with pytest.raises(CodecError, match="has no effort"):
        nlvc.compress(PHOTO, model=model(kind), effort=1)

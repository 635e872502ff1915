"""Whatever is done to a `.nlvc` file, decoding it ends in one clear ValueError: no other error, no huge allocation."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nlvc import coding, image_codec
from nlvc.coding import BitstreamError, MessageError
from nlvc.data.planes import PictureError
from nlvc.image_codec import CodecError, decompress, salvage

SHAPE = 7, 9, 4


@pytest.fixture(scope="module")
def model(untrained):
    return untrained()


@pytest.fixture(scope="module")
def file(model):
    """A whole file: 9 x 7 pixels with alpha, two levels."""
    image = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    return image_codec.compress(image, model=model)


def refused(data, model):
    """The one clear line with which `data` is refused."""
    with pytest.raises(ValueError) as caught:
        decompress(data, model=model)
    text = str(caught.value)
    assert text.strip()
    assert "\n" not in text
    assert isinstance(caught.value, (BitstreamError, CodecError, MessageError, PictureError))
    return text


def crafted(file, streams=None, alpha=None, **header):
    """The file with other contents and valid checksums; what is not named stays. streams: those of z_1 and z_2."""
    old = coding.unpack(file)
    streams = [[old.stream(level, 0)] for level in (1, 2)] if streams is None else [[stream] for stream in streams]
    chunks = {**old.chunks, coding.ALPHA: alpha} if alpha is not None else old.chunks
    new = old.header._replace(**header)
    return coding.pack(new, streams, chunks if new.mode == "RGBA" else {})


def test_the_file_itself_is_sound(file, model):
    assert decompress(file, model=model).shape == SHAPE
    assert decompress(crafted(file), model=model).shape == SHAPE
    assert decompress(bytearray(file), model=model).shape == SHAPE


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x20, 0x80, 0xFF])
def test_every_byte_matters(file, model, bits):
    for place in range(len(file)):
        damaged = bytearray(file)
        damaged[place] ^= bits
        refused(bytes(damaged), model)


def test_every_truncation(file, model):
    for length in range(len(file)):
        assert any(word in refused(file[:length], model) for word in ("truncated", "not an .nlvc"))


@pytest.mark.parametrize("more", [b"\0", b"NLVC", bytes(1000)])
def test_trailing_bytes(file, model, more):
    assert f"{len(more)} bytes follow" in refused(file + more, model)
    refused(file + file, model)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"nlvc" + bytes(100), bytes(100), b"\xff" * 100]
)
def test_foreign_files(model, data):
    assert "not an .nlvc file" in refused(data, model)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version(file, model, version):
    assert f"version {version}, not 1; update nlvc" in refused(file[:4] + bytes([version]) + file[5:], model)


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes(file, model, data):
    refused(data, model)
    refused(file[:15] + data, model)


def test_the_model_of_another_run(file, untrained, model):
    text = refused(file, untrained(weights_seed=1))
    assert model.fingerprint in text
    assert untrained(weights_seed=1).fingerprint in text


@pytest.mark.parametrize("levels", [1, 3, 16])
def test_another_number_of_levels(file, model, levels):
    header = coding.unpack(file).header._replace(mode="RGB", levels=levels)
    assert "levels or lanes are not those of its model" in refused(coding.pack(header, [[b"abcd"]] * levels), model)


@pytest.mark.parametrize("lanes", [1, 3, 255])
def test_another_number_of_lanes(file, model, lanes):
    assert "levels or lanes are not those of its model" in refused(crafted(file, lanes=lanes), model)


@pytest.mark.parametrize("tile", [1, 16, 63, 65, 1000, 65535])
def test_tiles_that_do_not_fit_the_model(file, model, tile):
    header = coding.unpack(file).header._replace(mode="RGB", tile=tile)
    count = header.tiles[0] * header.tiles[1]
    data = coding.pack(header, [[b""] * count] * 2)
    assert f"tiles of {tile} pixels do not fit a model of stride 64" in refused(data, model)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (1 << 16, 1 << 15, "1 to 200,000,000 pixels only"),
        (20_001, 10_000, "1 to 200,000,000 pixels only"),
        (2 * 10**8, 1, "too long and thin"),
        (1, 10**8, "too long and thin"),
        (3, 6 * 10**7, "too long and thin"),
    ],
)
def test_sizes_that_are_refused_allocate_nothing_huge(file, model, width, height, words):
    header = coding.unpack(file).header._replace(width=width, height=height, mode="RGB", tile=1 << 16)
    count = header.tiles[0] * header.tiles[1]
    data = coding.pack(header, [[b""] * count] * 2)
    tracemalloc.start()
    try:
        assert words in refused(data, model)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_callers_limit_counts_for_thin_pictures_too(file, model):
    header = coding.unpack(file).header._replace(width=3, height=50_000, mode="RGB", tile=1024)
    data = coding.pack(header, [[b""] * 49] * 2)
    with pytest.raises(CodecError, match="too long and thin"):
        decompress(data, model=model, max_pixels=200_000)
    with pytest.raises(ValueError, match="the message is cut off"):
        decompress(data, model=model)


@pytest.mark.parametrize(("width", "height"), [(1 << 16, 1), (1, 8193), (14_000, 14_000), (1025, 1024)])
def test_tiles_that_are_too_large_for_the_networks(file, model, width, height):
    """However small the picture is: a tile is grown to what networks are compiled for."""
    header = coding.unpack(file).header._replace(width=width, height=height, mode="RGB", tile=1 << 16)
    data = coding.pack(header, [[b""]] * 2)
    tracemalloc.start()
    try:
        assert "tiles of 65536 pixels are larger than any that are written" in refused(data, model)
        with pytest.raises(CodecError, match="larger"):
            salvage(data, model=model)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("width", "height"), [(9, 7), (1024, 1024), (4096, 1), (257, 1500)])
def test_tiles_that_are_larger_than_their_picture(model, width, height):
    assert image_codec.grid_of(model, height, width, 1 << 16).tiles == (1, 1)


def test_a_large_size_needs_a_large_table_of_contents(file, model):
    header = coding.unpack(file).header._replace(mode="RGB")
    data = coding.pack(header, [[b""]] * 2)
    head = coding.pack(header._replace(width=14_000, height=14_000, tile=64), [[b""] * 219**2] * 2)
    # The long header in front of the short table.
    cut = head[: head.index(b"TOCS")] + data[data.index(b"TOCS") :]
    tracemalloc.start()
    try:
        assert "table of contents is too short" in refused(cut, model)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def outcome(data, model):
    """A crafted file may by chance be a picture; all that is sure is its shape, or one clear error."""
    try:
        picture = decompress(data, model=model)
    except (BitstreamError, CodecError, MessageError, PictureError) as error:
        return str(error)
    assert picture.shape == SHAPE
    assert picture.dtype == np.uint8
    return picture


@pytest.mark.parametrize("level", [1, 2])
def test_every_bit_of_a_stream(file, model, level):
    """The checksum is right each time, so these bits reach the coder and the networks."""
    streams = [coding.unpack(file).stream(level, 0) for level in (1, 2)]
    outcomes = []
    for place in range(8 * len(streams[level - 1])):
        damaged = bytearray(streams[level - 1])
        damaged[place // 8] ^= 1 << place % 8
        other = list(streams)
        other[level - 1] = bytes(damaged)
        outcomes.append(outcome(crafted(file, other), model))
    # All but raw bits of escapes, which change one symbol and nothing after it; a change of z_2 spoils z_1, too.
    assert sum(isinstance(text, str) for text in outcomes) > 0.9 * len(outcomes)


@settings(max_examples=100)
@given(streams=st.tuples(*[st.none() | st.binary(max_size=400)] * 2))
@example(streams=(b"", b""))
@example(streams=(b"\xff\xff\xff\x7f" * 100, None))
@example(streams=(None, b"\xff\xff\xff\x7f" * 100))
@example(streams=(b"\0\0\0\x40" * 1000, None))
def test_any_streams(file, model, streams):
    """None: the stream that belongs there."""
    old = coding.unpack(file)
    streams = [old.stream(level, 0) if s is None else s for level, s in zip((1, 2), streams, strict=True)]
    outcome(crafted(file, streams), model)
    pixels, lost = salvage(crafted(file, streams), model=model)
    assert pixels.shape == SHAPE
    assert set(lost) <= {"z_1 of tile 0", "z_2 of tile 0"}


@settings(max_examples=30)
@given(garbage=st.binary(min_size=400, max_size=401).filter(lambda b: b[3] < 0x80))
@example(garbage=b"\xff\xff\xff\x7f" + b"\xff" * 4000)
def test_garbage_symbols_of_a_grey_photo(file, model, garbage):
    """Random words become random symbols, most of them absurd: the networks get them, the coder is left with a rest."""
    z_1 = coding.unpack(file).stream(1, 0)
    for streams in ([z_1, garbage], [garbage, coding.unpack(file).stream(2, 0)]):
        refused(crafted(file, [stream[: len(stream) // 4 * 4] for stream in streams], mode="L"), model)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("more", [bytes(4), b"\xff" * 4, bytes(400)])
def test_something_is_left_after_the_last_symbol(file, model, more, level):
    streams = [coding.unpack(file).stream(level, 0) for level in (1, 2)]
    streams[level - 1] += more
    assert "left after the last symbol" in refused(crafted(file, streams), model)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def header_chunk(width, height, kind=0):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)


ROWS = b"IDAT", zlib.compress(bytes(SHAPE[0] * (1 + SHAPE[1])))
RIGHT = header_chunk(SHAPE[1], SHAPE[0])
END = b"IEND", b""


def test_a_made_alpha_is_read(file, model):
    assert not decompress(crafted(file, alpha=png(RIGHT, ROWS, END)), model=model)[:, :, 3].any()


@pytest.mark.parametrize(
    "alpha",
    [
        b"",
        b"garbage",
        png(header_chunk(9, 8), ROWS, END),
        png(header_chunk(9, 7, kind=2), (b"IDAT", zlib.compress(bytes(7 * 28))), END),
        png(header_chunk(1 << 15, 1 << 15), ROWS, END),
        png(header_chunk(12_000, 9_000), ROWS, END),
        png(RIGHT, header_chunk(1 << 15, 1 << 15), ROWS, END),
        png(RIGHT, header_chunk(12_000, 9_000), ROWS, END),
        png(RIGHT, (b"IDAT", ROWS[1][:5])),
        png(RIGHT, (b"IDAT", b"not deflated"), END),
        png(RIGHT, (b"tRNS", b""), ROWS, END),
        png(RIGHT, (b"pHYs", b""), ROWS, END),
        png(RIGHT, END),
        png(RIGHT),
    ],
)
def test_alpha_that_cannot_be_read(file, model, alpha):
    tracemalloc.start()
    try:
        assert "alpha plane" in refused(crafted(file, alpha=alpha), model)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_alpha(file, model, data):
    """Every chunk keeps a valid checksum of its own, so that the damage reaches its parser."""
    content = bytearray(ROWS[1])
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kinds = st.sampled_from([b"tRNS", b"pHYs", b"gAMA", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT"])
    extra = data.draw(st.lists(st.tuples(kinds, st.binary(max_size=30)), max_size=3))
    alpha = png(RIGHT, *extra, (b"IDAT", bytes(content)), END)
    outcome(crafted(file, alpha=alpha[: data.draw(st.integers(0, len(alpha)) | st.just(len(alpha)))]), model)


def test_alpha_where_there_must_be_none(file, model):
    data = crafted(file, mode="RGB")
    with_alpha = data[: data.index(b"TOCS")] + file[file.index(b"ALPH") : file.index(b"TOCS")]
    assert "alpha do not go together" in refused(with_alpha + data[data.index(b"TOCS") :], model)

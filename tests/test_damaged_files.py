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
from nlvc.image_codec import CodecError, decompress

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


def crafted(file, payload=None, alpha=None, **header):
    """The file with other contents and a valid checksum; what is not named stays."""
    old_header, old_payload, old_alpha = coding.unpack(file)
    payload = old_payload if payload is None else payload
    alpha = old_alpha if alpha is None else alpha
    sizes = (len(payload) - len(payload) // 2, len(payload) // 2)
    sized = old_header._replace(level_bytes=sizes, alpha_bytes=len(alpha))
    return coding.pack(sized._replace(**header), payload, alpha)


def test_the_file_itself_is_sound(file, model):
    assert decompress(file, model=model).shape == SHAPE
    assert decompress(crafted(file), model=model).shape == SHAPE
    assert decompress(bytearray(file), model=model).shape == SHAPE


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x80, 0xFF])
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


def test_a_newer_version(file, model):
    assert "newer" in refused(file[:4] + b"\x02" + file[5:], model)


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
    payload = coding.unpack(file)[1]
    sizes = (len(payload), *[0] * (levels - 1))
    text = refused(crafted(file, level_bytes=sizes), model)
    assert f"{levels} levels" in text
    assert "its model has 2" in text


@pytest.mark.parametrize(
    ("width", "height"), [(1 << 16, 1 << 15), (10_001, 10_000), (10**8, 1), (1, 10**8), (3, 3 * 10**7), (10**4, 10**4)]
)
def test_huge_sizes_allocate_nothing_huge(file, model, width, height):
    header, payload, _ = coding.unpack(file)
    data = coding.pack(header._replace(width=width, height=height, mode="RGB", alpha_bytes=0), payload)
    tracemalloc.start()
    try:
        refused(data, model)
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


def test_every_bit_of_the_payload(file, model):
    """The checksum is right each time, so these bits reach the coder and the networks."""
    payload = coding.unpack(file)[1]
    outcomes = []
    for place in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[place // 8] ^= 1 << place % 8
        outcomes.append(outcome(crafted(file, bytes(damaged)), model))
    # All but raw bits of escapes, which change one symbol and nothing after it.
    assert sum(isinstance(text, str) for text in outcomes) > 0.9 * len(outcomes)


@settings(max_examples=100)
@given(payload=st.binary(max_size=400), lanes=st.integers(1, 255))
@example(payload=b"", lanes=2)
@example(payload=b"\xff\xff\xff\x7f" * 100, lanes=2)
@example(payload=b"\xff\xff\xff\x7f" + b"\xff" * 4000, lanes=1)
@example(payload=b"\0\0\0\x40" * 1000, lanes=1)
def test_any_payload(file, model, payload, lanes):
    outcome(crafted(file, payload, lanes=lanes), model)


@settings(max_examples=30)
@given(payload=st.binary(min_size=400, max_size=401).filter(lambda b: b[3] < 0x80))
@example(payload=b"\xff\xff\xff\x7f" + b"\xff" * 4000)
def test_garbage_symbols_of_a_grey_photo(file, model, payload):
    """Random words become random symbols, most of them absurd: the networks get them, the coder is left with a rest."""
    refused(crafted(file, payload[: len(payload) // 4 * 4], alpha=b"", mode="L"), model)


@pytest.mark.parametrize("more", [bytes(4), b"\xff" * 4, bytes(400)])
def test_something_is_left_after_the_last_symbol(file, model, more):
    assert "left after its last symbol" in refused(crafted(file, coding.unpack(file)[1] + more), model)


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


def test_alpha_where_there_must_be_none(file):
    with pytest.raises(BitstreamError, match="mode RGB cannot have"):
        crafted(file, mode="RGB")

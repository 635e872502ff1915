"""The file: everything that is written comes back, and the bytes themselves never change. Damage: test_damage.py."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import bitstream
from nlvc.coding.bitstream import BitstreamError, Header

quick = settings(max_examples=60)
HEADER = Header(0, 300, 1, "RGBA", "0123456789abcdef", 7, 2, 256)
STREAMS = [[b"z1 left", b""], [b"z2 left", b"z2 right"]]
CHUNKS = {"eXIF": b"Exif\0\0", "iCCP": b"", "xMPP": b"<x/>", "ALPH": b"alpha"}

# Written out by hand from docs/bitstream.md: if one of these bytes has to change, the version has to change too.
GOLDEN_HEADER = bytes.fromhex(
    "4e4c5643 01 00 02 07"  # NLVC, version 1.0, RGB and alpha, 7 lanes
    "0123456789abcdef"
    "ac02 01 02 8002"  # 300 x 1 pixels, 2 levels, tiles of 256
    "09391a76"
)
GOLDEN_CHUNKS = bytes.fromhex(
    "65584946 06 457869660000 ec399782"  # eXIF
    "69434350 00 3f7bc613"  # iCCP, empty
    "784d5050 04 3c782f3e e8be53f6"  # xMPP
    "414c5048 05 616c706861 e76399ce"  # ALPH
)
GOLDEN_CONTENTS = bytes.fromhex(
    "544f4353 14"  # TOCS, 20 bytes
    "07 cde12406 08 75610a12"  # z_2 of both tiles
    "07 6393b080 00 00000000"  # z_1 of both tiles
    "5bd4b99b"
)
GOLDEN = GOLDEN_HEADER + GOLDEN_CHUNKS + GOLDEN_CONTENTS + b"z2 left" + b"z2 right" + b"z1 left"


def with_checksum(body):
    return body + zlib.crc32(body).to_bytes(4, "little")


def chunk(name, content):
    """A chunk of less than 128 bytes."""
    return with_checksum(name + bytes([len(content)]) + content)


def streams_of(file):
    return [[file.stream(level, tile) for tile in range(len(sizes))] for level, sizes in enumerate(file.sizes, start=1)]


# --- The bytes ---


def test_the_golden_file():
    assert bitstream.pack(HEADER, STREAMS, CHUNKS) == GOLDEN
    file = bitstream.unpack(GOLDEN)
    file.check()
    assert (file.header, file.chunks, streams_of(file), file.damaged) == (HEADER, CHUNKS, STREAMS, ())
    assert bitstream.read_header(GOLDEN_HEADER) == HEADER


@pytest.mark.parametrize(
    ("number", "code"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (1 << 31, "8080808008")],
)
def test_numbers_are_in_seven_bits_a_byte_lowest_first(number, code):
    assert bitstream._varint(number) == bytes.fromhex(code)
    assert bitstream._read_varint(b"xx" + bytes.fromhex(code) + b"x", 2) == (number, 2 + len(code) // 2)


@quick
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    mode=st.sampled_from(bitstream.MODES),
    fingerprint=st.binary(min_size=8, max_size=8).map(bytes.hex),
    lanes=st.integers(1, 255),
    levels=st.integers(1, 16),
    tile=st.integers(8, 64) | st.just(1 << 16),
    minor=st.integers(0, 255),
    chunks=st.dictionaries(st.sampled_from(bitstream.METADATA), st.binary(max_size=300)),
    data=st.data(),
)
def test_unpack_undoes_pack(width, height, mode, fingerprint, lanes, levels, tile, minor, chunks, data):
    header = Header(minor, width, height, mode, fingerprint, lanes, levels, tile)
    rows, columns = header.tiles
    assert (rows - 1) * tile < height <= rows * tile and (columns - 1) * tile < width <= columns * tile
    sizes = data.draw(st.lists(st.integers(0, 300), min_size=levels * rows * columns, max_size=levels * rows * columns))
    # Different bytes for each, so that none can be taken for another.
    content = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    streams = [content[level::levels] for level in range(levels)]
    if mode == "RGBA":
        chunks["ALPH"] = data.draw(st.binary(max_size=300))
    code = bitstream.pack(header, streams, chunks)
    file = bitstream.unpack(code)
    file.check()
    assert file.lost() == [] and file.damaged == ()
    assert (file.header, file.chunks, streams_of(file)) == (header, chunks, streams)
    assert file.sizes == tuple(tuple(map(len, level)) for level in streams)
    assert bitstream.read_header(code[:64]) == header
    # The deepest level of all tiles comes first, so that a file cut short keeps it.
    assert code.endswith(b"".join(stream for level in reversed(streams) for stream in level))


def test_what_a_file_costs_beside_its_streams():
    one_pixel = Header(0, 1, 1, "L", "0" * 16, 1, 1, 1024)
    assert len(bitstream.pack(one_pixel, [[b""]])) == 25 + 14
    photo = Header(0, 4000, 3000, "RGB", "0" * 16, 2, 3, 1024)
    empty = [[b""] * 12] * 3
    assert len(bitstream.pack(photo, empty)) <= 28 + 10 + 3 * 12 * 5


@pytest.mark.parametrize(("width", "height"), [(1 << 31, 1), (1, 1 << 31), (1 << 16, 1 << 15)])
def test_the_largest_pictures(width, height):
    header = Header(0, width, height, "L", "f" * 16, 255, 1, 1 << 16)
    rows, columns = header.tiles
    code = bitstream.pack(header, [[b""] * (rows * columns)])
    assert bitstream.unpack(code).header == bitstream.read_header(code[:64]) == header
    with pytest.raises(BitstreamError, match="pixels"):
        bitstream.pack(header._replace(width=width + 1, height=height + 1), [[b""] * (rows * columns)])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes(kind):
    assert bitstream.unpack(kind(GOLDEN)).stream(2, 1) == b"z2 right"
    assert bitstream.read_header(kind(GOLDEN)) == HEADER


# --- Later versions ---


def test_later_minor_versions_are_read():
    changed = with_checksum(GOLDEN_HEADER[:5] + b"\x09" + GOLDEN_HEADER[6:-4])
    file = bitstream.unpack(changed + GOLDEN[len(GOLDEN_HEADER) :])
    file.check()
    assert file.header == HEADER._replace(minor=9)
    assert streams_of(file) == STREAMS


@pytest.mark.parametrize("name", [b"nEWS", b"news", b"aLPH", b"tOCS"])
def test_an_unknown_chunk_with_a_small_letter_is_skipped(name):
    for before in (GOLDEN_HEADER, GOLDEN_HEADER + GOLDEN_CHUNKS):
        file = bitstream.unpack(before + chunk(name, b"for later readers") + GOLDEN[len(before) :])
        file.check()
        assert (file.chunks, streams_of(file)) == (CHUNKS, STREAMS)


@pytest.mark.parametrize("name", [b"NEWS", b"News", b"EXIF", b"XMPP"])
def test_an_unknown_chunk_with_a_capital_is_refused(name):
    new = chunk(name, b"something that pixels depend on")
    with pytest.raises(BitstreamError, match=f"needs what {name.decode()} means; update nlvc"):
        bitstream.unpack(GOLDEN_HEADER + new + GOLDEN[len(GOLDEN_HEADER) :])
    # An update would not help here.
    with pytest.raises(BitstreamError, match=f"damaged .nlvc file: its {name.decode()} chunk"):
        bitstream.unpack(GOLDEN_HEADER + new[:-1] + b"!" + GOLDEN[len(GOLDEN_HEADER) :])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version):
    # The rest of it may be anything.
    for rest in (GOLDEN[5:], b"", b"\xff" * 100):
        with pytest.raises(BitstreamError, match=f"version {version}, not 1; update nlvc"):
            bitstream.read_header(GOLDEN[:4] + bytes([version]) + rest)


def test_an_unknown_mode_is_refused():
    changed = with_checksum(GOLDEN_HEADER[:6] + b"\x03" + GOLDEN_HEADER[7:-4])
    with pytest.raises(BitstreamError, match="unknown mode 3"):
        bitstream.read_header(changed)


@pytest.mark.parametrize("foreign", [b"", b"\x89PNG\r\n\x1a\n", b"RIFF", b"nlvc", b"\xff" * 100])
def test_a_foreign_file_is_refused(foreign):
    for read in (bitstream.unpack, bitstream.read_header):
        with pytest.raises(BitstreamError, match="not an .nlvc file"):
            read(foreign)


# --- What cannot be written ---


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"minor": 256}, "minor"),
        ({"minor": -1}, "minor"),
        ({"width": 0}, "pixels"),
        ({"height": -1}, "pixels"),
        ({"width": 1 << 30, "height": 3}, "pixels"),
        ({"mode": "CMYK"}, "mode"),
        ({"mode": "RGB"}, "alpha"),
        ({"fingerprint": "0123456789ABCDEF"}, "fingerprint"),
        ({"fingerprint": "0123"}, "fingerprint"),
        ({"lanes": 0}, "lanes"),
        ({"lanes": 256}, "lanes"),
        ({"levels": 0}, "levels"),
        ({"levels": 17}, "levels"),
        ({"levels": 3}, "3 levels and 2 tiles"),
        ({"tile": 0}, "tile"),
        ({"tile": (1 << 16) + 1}, "tile"),
        ({"tile": 100}, "2 levels and 3 tiles"),
    ],
)
def test_pack_refuses_a_header(change, says):
    with pytest.raises(BitstreamError, match=says):
        bitstream.pack(HEADER._replace(**change), STREAMS, CHUNKS)


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ({}, "alpha"),
        ({**CHUNKS, "TOCS": b""}, "unknown chunk 'TOCS'"),
        ({**CHUNKS, "nEWS": b""}, "unknown chunk 'nEWS'"),
    ],
)
def test_pack_refuses_chunks(chunks, says):
    with pytest.raises(BitstreamError, match=says):
        bitstream.pack(HEADER, STREAMS, chunks)

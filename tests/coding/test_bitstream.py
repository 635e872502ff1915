"""The file: every header comes back, and every kind of damage is named."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import bitstream
from nlvc.coding.bitstream import BitstreamError, Header

quick = settings(max_examples=60)
HEADER = Header(1, 768, 512, "RGBA", "00ff00ff00ff00ff", 2, (300, 20, 4), 5)
PAYLOAD, ALPHA = bytes(range(256)) + bytes(68), b"alpha"


@pytest.fixture(scope="module")
def data():
    return bitstream.pack(HEADER, PAYLOAD, ALPHA)


def with_checksum(body):
    return body + zlib.crc32(body).to_bytes(4, "little")


@quick
@given(
    width=st.integers(1, 1 << 15),
    height=st.integers(1, 1 << 15),
    mode=st.sampled_from(bitstream.MODES),
    fingerprint=st.binary(min_size=8, max_size=8).map(bytes.hex),
    lanes=st.integers(1, 255),
    level_bytes=st.lists(st.integers(0, 300), min_size=1, max_size=16).map(tuple),
    alpha=st.binary(max_size=40),
)
def test_unpack_undoes_pack(width, height, mode, fingerprint, lanes, level_bytes, alpha):
    alpha = alpha if mode == "RGBA" else b""
    header = Header(1, width, height, mode, fingerprint, lanes, level_bytes, len(alpha))
    payload = b"\x5a" * sum(level_bytes)
    data = bitstream.pack(header, payload, alpha)
    assert bitstream.unpack(data) == (header, payload, alpha)
    assert bitstream.read_header(data) == bitstream.read_header(data[:256]) == header


def test_the_header_is_small(data):
    assert len(data) - len(PAYLOAD) - len(ALPHA) <= 32
    one_pixel = Header(1, 1, 1, "L", "0" * 16, 1, (0,))
    assert len(bitstream.pack(one_pixel, b"")) == 24


def test_the_largest_picture():
    header = HEADER._replace(width=1 << 31, height=1)
    assert bitstream.read_header(bitstream.pack(header, PAYLOAD, ALPHA)) == header
    with pytest.raises(BitstreamError, match="pixels"):
        bitstream.pack(header._replace(height=2), PAYLOAD, ALPHA)


def test_every_truncation(data):
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match="truncated" if length else "not an .nlvc"):
            bitstream.unpack(data[:length])


def test_every_flipped_bit(data):
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(BitstreamError):
            bitstream.unpack(damaged)


@quick
@given(st.binary(max_size=80))
def test_random_bytes_after_the_magic(noise):
    with pytest.raises(BitstreamError):
        bitstream.unpack(bitstream.MAGIC + noise)


@pytest.mark.parametrize("foreign", [b"", b"\x89PNG\r\n\x1a\n", b"RIFF", b"nlvc", b"\xff" * 100])
def test_a_foreign_file(foreign):
    with pytest.raises(BitstreamError, match="not an .nlvc file"):
        bitstream.unpack(foreign)


def test_bytes_after_the_end(data):
    with pytest.raises(BitstreamError, match="2 bytes follow"):
        bitstream.unpack(data + b"ab")


def test_a_newer_version(data):
    with pytest.raises(BitstreamError, match="version 2, newer than 1; update"):
        bitstream.read_header(data[:4] + b"\x02" + data[5:])


def test_damage_under_a_right_checksum(data):
    """Somebody wrote it so: sizes are still looked at before anything is allocated."""
    fixed = data[:15]
    for rest, says in [
        (b"\x00\x01\x01\x00\x00", "pixels"),
        (b"\x80\x80\x80\x80\x40\x04\x01\x00\x00", "pixels"),
        (b"\x01\x01\x00\x00", "levels"),
        (b"\x01\x01\x11" + bytes(18), "levels"),
        (b"\x81\x00\x01\x01\x00\x00", "shortest"),
        (b"\xff" * 20, "shortest"),
        (b"\x01\x01\x01\xff\xff\xff\xff\xff\x7f\x00", "truncated"),
    ]:
        with pytest.raises(BitstreamError, match=says):
            bitstream.unpack(with_checksum(fixed + rest))
    for at, value, says in [(4, 0, "version"), (5, 3, "mode"), (5, 1, "alpha"), (6, 0, "lanes")]:
        changed = data[:at] + bytes([value]) + data[at + 1 : -4]
        with pytest.raises(BitstreamError, match=says):
            bitstream.unpack(with_checksum(changed))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version"),
        ({"width": 0}, "pixels"),
        ({"mode": "CMYK"}, "mode"),
        ({"mode": "RGB"}, "alpha"),
        ({"fingerprint": "00FF00FF00FF00FF"}, "fingerprint"),
        ({"fingerprint": "00ff"}, "fingerprint"),
        ({"lanes": 256}, "lanes"),
        ({"level_bytes": ()}, "levels"),
        ({"level_bytes": (324,) + (0,) * 16}, "levels"),
        ({"level_bytes": (325, -1)}, "size"),
        ({"level_bytes": (300, 20)}, "324"),
        ({"alpha_bytes": 4}, "alpha"),
    ],
)
def test_pack_refuses(change, says):
    with pytest.raises(BitstreamError, match=says):
        bitstream.pack(HEADER._replace(**change), PAYLOAD, ALPHA)

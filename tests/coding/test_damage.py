"""Damaged files and messages end in an error that says so, or are found out: never in a crash, a hang or a wrong byte.

A file's own damage comes first, then that of the words inside a stream, where a checksum no longer helps.
"""

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import bitstream, codecs, rans, tables
from nlvc.coding.bitstream import BitstreamError, Header

quick = settings(max_examples=30)
COUNT = 240
HEADER = Header(0, 40, 20, "RGBA", "00ff00ff00ff00ff", 2, 3, 20)
STREAMS = [[b"first of z1", b"second of z1"], [b"", b"z2"], [b"deepest", b"also deepest"]]
CHUNKS = {"eXIF": b"Exif\0\0block", "iCCP": b"profile", "xMPP": b"<x/>", "ALPH": b"alpha"}


# --- Files ---


def with_checksum(body):
    return body + zlib.crc32(body).to_bytes(4, "little")


def head(*numbers):
    """A header with a right checksum: width, height, levels, side of a tile."""
    fixed = bitstream.MAGIC + bytes((1, 0, 0, 2)) + bytes(8)
    return with_checksum(fixed + b"".join(map(bitstream._varint, numbers)))


def chunk(name, content, size=None):
    """A chunk with a right checksum, that says `size` of its content."""
    return with_checksum(name + bitstream._varint(len(content) if size is None else size) + content)


@pytest.fixture(scope="module")
def data():
    """A small file with everything in it, also a chunk of a later version, which `pack` does not write."""
    whole = bitstream.pack(HEADER, STREAMS, CHUNKS)
    at = whole.index(b"eXIF")
    return whole[:at] + chunk(b"nEWS", b"later") + whole[at:]


@pytest.fixture(scope="module")
def places(data):
    """{(level, tile): (begin, end)} of the streams, in their order."""
    found, begin = {}, len(data) - sum(len(stream) for level in STREAMS for stream in level)
    for level in (3, 2, 1):
        for tile in (0, 1):
            found[level, tile] = begin, begin + len(STREAMS[level - 1][tile])
            begin = found[level, tile][1]
    return found


def check_what_is_left(file):
    """Whatever a damaged file still gives is what was written."""
    lost = file.lost()
    for level, streams in enumerate(STREAMS, start=1):
        for tile, stream in enumerate(streams):
            if (level, tile) in lost:
                with pytest.raises(BitstreamError, match=f"z_{level} of tile {tile}"):
                    file.stream(level, tile)
            else:
                assert file.stream(level, tile) == stream
    assert file.chunks.items() <= CHUNKS.items()
    assert file.chunks.keys().isdisjoint(file.damaged)
    return lost


def test_every_truncation(data, places):
    first = min(begin for begin, _ in places.values())
    for length in range(len(data)):
        if length < first:
            with pytest.raises(BitstreamError, match="truncated" if length else "not an .nlvc"):
                bitstream.unpack(data[:length])
            continue
        file = bitstream.unpack(data[:length])
        with pytest.raises(BitstreamError, match="truncated"):
            file.check()
        # An empty stream has nothing to lose.
        assert check_what_is_left(file) == [place for place, (begin, end) in places.items() if end > max(begin, length)]
        assert file.chunks == CHUNKS


def test_a_file_cut_in_its_last_stream_gives_all_others(data):
    file = bitstream.unpack(data[:-1])
    assert file.lost() == [(1, 1)]
    assert [file.stream(level, tile) for level, tile in [(3, 0), (3, 1), (2, 0), (2, 1), (1, 0)]] == [
        b"deepest", b"also deepest", b"", b"z2", b"first of z1"
    ]  # fmt: skip


def test_every_flipped_bit(data, places):
    """Nothing may pass as whole, and only what was hit is lost."""
    first = min(begin for begin, _ in places.values())
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        try:
            file = bitstream.unpack(damaged)
        except BitstreamError:
            assert at // 8 < first, "a damaged stream must not cost the others"
            continue
        with pytest.raises(BitstreamError, match="damaged"):
            file.check()
        hit = [place for place, (begin, end) in places.items() if begin <= at // 8 < end]
        assert check_what_is_left(file) == hit
        assert len(hit) + len(file.damaged) == 1


@quick
@given(data=st.data())
def test_every_damage_is_found(data):
    """Several bytes changed, cut out or put in."""
    whole = bitstream.pack(HEADER, STREAMS, CHUNKS)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 20)))
    damaged = whole[:begin] + data.draw(st.binary(max_size=20)) + whole[end:]
    try:
        file = bitstream.unpack(damaged)
        check_what_is_left(file)
        file.check()
    except BitstreamError:
        assert damaged != whole
    else:
        assert damaged == whole


@quick
@given(st.binary(max_size=80))
def test_random_bytes_after_the_magic(noise):
    with pytest.raises(BitstreamError):
        bitstream.unpack(bitstream.MAGIC + noise)


@settings(max_examples=60)
@given(noise=st.binary(max_size=60), name=st.sampled_from([b"TOCS", b"eXIF", b"ALPH", b"nEWS"]))
def test_random_chunks_after_a_right_header(noise, name):
    """Somebody may write anything under right checksums."""
    for body in (noise, chunk(name, noise), chunk(name, noise) + chunk(b"TOCS", noise)):
        try:
            file = bitstream.unpack(head(33, 17, 2, 16) + body)
            file.check()
        except BitstreamError:
            continue
        assert [len(level) for level in file.sizes] == [6, 6]


def test_bytes_after_the_end(data):
    file = bitstream.unpack(data + b"ab")
    assert check_what_is_left(file) == []
    with pytest.raises(BitstreamError, match="2 bytes follow"):
        file.check()


@pytest.mark.parametrize("name", [b"eXIF", b"ALPH"])
def test_a_chunk_there_twice(data, name):
    at = data.index(name)
    for second in (chunk(name, b"again"), chunk(name, b"again")[:-1] + b"!"):
        with pytest.raises(BitstreamError, match="two chunks"):
            bitstream.unpack(data[:at] + second + data[at:])


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((0, 1, 1, 1), "pixels"),
        ((1, 0, 1, 1), "pixels"),
        ((1 << 31, 2, 1, 1), "pixels"),
        ((1 << 41, 1 << 41, 1, 1), "pixels"),
        ((1, 1, 0, 1), "levels"),
        ((1, 1, 17, 1), "levels"),
        ((1, 1, 1, 0), "tile"),
        ((1, 1, 1, (1 << 16) + 1), "tile"),
        ((1 << 42, 1, 1, 1), "shortest"),
    ],
)
def test_a_header_outside_its_limits(numbers, says):
    with pytest.raises(BitstreamError, match=says):
        bitstream.read_header(head(*numbers))


def test_a_number_that_is_longer_than_it_needs_to_be():
    """Or else two files would say the same."""
    fixed = head(1, 1, 1, 1)[:16]
    for numbers in (b"\x81\x00\x01\x01\x01", b"\x01\x01\x01\x80\x80\x00"):
        with pytest.raises(BitstreamError, match="shortest"):
            bitstream.read_header(with_checksum(fixed + numbers))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\x00\x01\x02\x03\x00", "no name"),
        (chunk("ÄÖ".encode(), b""), "no name"),
        (b"TOCS\xff\xff\xff\xff\xff\xff\xff", "shortest"),
        (chunk(b"TOCS", b"", 1 << 41), "inside a chunk"),
        (chunk(b"nEWS", b"x" * 50, 1 << 41), "inside a chunk"),
        (chunk(b"TOCS", b"\x00\x00\x00\x00"), "too short"),
        (chunk(b"TOCS", b"\x80\x80\x00\x00\x00"), "shortest"),
        (chunk(b"TOCS", b"\x80\x80\x80\x80\x80"), "too early"),
        (chunk(b"TOCS", bytes(10)), "too long"),
    ],
)
def test_chunks_that_make_no_sense(body, says):
    with pytest.raises(BitstreamError, match=says):
        bitstream.unpack(head(1, 1, 1, 1) + body)


@pytest.mark.parametrize(
    "data",
    [
        head(1 << 16, 1 << 15, 16, 1) + chunk(b"TOCS", bytes(5 * 16)),
        head(1 << 31, 1, 1, 1) + chunk(b"TOCS", bytes(5000)),
        head(1 << 16, 1 << 15, 16, 1) + chunk(b"TOCS", b"", (1 << 42) - 1),
        head(1, 1, 1, 1) + chunk(b"eXIF", b"", (1 << 42) - 1),
        head(1, 1, 1, 1) + chunk(b"TOCS", bitstream._varint((1 << 42) - 1) + bytes(4)),
    ],
    ids=["tiles", "row of tiles", "contents", "chunk", "stream"],
)
def test_sizes_that_a_file_claims_cost_no_memory(data):
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            bitstream.unpack(data).check()
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_damaged_chunks_without_number_take_no_time():
    """Names are compared once each, not with all others."""
    names = (bytes((97 + n % 26, 65 + n // 26 % 26, 65 + n // 676 % 26, 65 + n // 17576)) for n in range(60_000))
    body = b"".join(name + b"\x00wrong"[:5] for name in names)
    file = bitstream.unpack(head(1, 1, 1, 1) + body + chunk(b"TOCS", bytes(5)))
    assert len(file.damaged) == 60_000


# --- Words ---


def levels(kernels):
    """Two levels, of which the first chooses the tables of the second, as in a model."""

    def in_order():
        gaussian, laplace = tables.scale_tables("gaussian"), tables.scale_tables("laplace")
        top = yield codecs.indexed(gaussian, np.arange(COUNT // 4) % 64, kernels=kernels)
        yield codecs.indexed(laplace, np.clip(np.abs(np.int64(top)).repeat(3), 0, 63), kernels=kernels)

    return codecs.from_generator(in_order)


def outcome(words, lanes, kernels):
    try:
        rest, data = levels(kernels).pop(rans.unflatten(words, lanes))
    except rans.MessageError as error:
        return str(error)
    assert all(symbols.dtype == np.int32 for symbols in data)
    return [symbols.tolist() for symbols in data], rans.flatten(rest, fold=False).tolist()


@pytest.fixture(scope="module")
def words():
    rng = np.random.default_rng(0)
    top = np.rint(rng.normal(0, tables.SCALES[np.arange(COUNT // 4) % 64])).astype(np.int32)
    below = np.rint(rng.laplace(0, tables.SCALES[np.clip(np.abs(top).repeat(3), 0, 63)])).astype(np.int32)
    return rans.flatten(levels(True).push(rans.empty_message(codecs.LANES), [top, below]))


@quick
@given(words=st.binary(min_size=8, max_size=800), lanes=st.integers(1, 4))
def test_random_words(words, lanes):
    words = np.frombuffer(words[: len(words) // 4 * 4], "<u4").astype(np.uint32)
    words[0] &= 0x7FFFFFFF
    words[0] |= 1
    assert outcome(words, lanes, True) == outcome(words, lanes, False)


@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_constant_words(value):
    """All ones is the longest escape code there is, again and again."""
    words = np.full(5000, value, np.uint32)
    words[0] = 0x7FFFFFFF
    assert outcome(words, 2, True) == outcome(words, 2, False)


def test_every_truncation_of_the_words(words):
    whole = outcome(words, codecs.LANES, True)
    assert not isinstance(whole, str)
    for length in range(len(words)):
        assert "cut off" in outcome(words[:length], codecs.LANES, True)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("length", range(31, 63))
def test_words_that_end_inside_an_escape(length, kernels):
    """The escape alone fills this table and costs nothing. The side, the end of the unary part and the distance take
    1 + 1 + 16 bits off a head of the given length, which without words must not fall below 31."""
    table = tables.Tables([0], [0], [16], [0, 1 << 16])
    message = rans.Message(np.array([1 << length], np.uint64), ())
    codec = codecs.indexed(table, [0], kernels=kernels)
    if length >= 31 + 18:
        assert codec.pop(message)[1] == -1
    else:
        with pytest.raises(rans.MessageError, match="ran out"):
            codec.pop(message)


@quick
@given(data=st.data())
def test_flipped_bits(words, data):
    words = words.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        words[data.draw(st.integers(0, len(words) - 1))] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert outcome(words, codecs.LANES, True) == outcome(words, codecs.LANES, False)


def test_a_symbol_outside_int32_is_noticed():
    """The escape of a table at the end of int32 can say a greater number; only damage makes it do so."""
    end = tables.Tables([2**31 - 1], [0], [0], [0, 1 << 16])
    below = tables.Tables([2**31 - 3], [0], [0], [0, 1 << 16])
    message = codecs.indexed(below, [0]).push(rans.empty_message(1), [2**31 - 1])
    for kernels in (True, False):
        with pytest.raises(rans.MessageError, match="int32"):
            codecs.indexed(end, [0], kernels=kernels).pop(message)

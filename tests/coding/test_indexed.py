"""The indexed codec: kernels against the plain reference and against Craystack's way, escapes, sizes, golden words."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nlvc.coding import bitstream, codecs, rans, tables

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "messages.json").read_text(encoding="utf-8"))
INT32 = np.iinfo(np.int32)
quick = settings(max_examples=30)


def odd_tables():
    """Supports of every kind: far from zero, one symbol, none, at the ends of int32, and high escape orders."""
    rows = [
        (-3, [100, 5, 60000, 1, 2], 0),
        (1000, [65535], 3),
        (7, [], 9),
        (INT32.max - 1, [10, 20], 31),
        (INT32.min, [1, 65534], 17),
    ]
    counts = [[*inside, (1 << 16) - sum(inside)] for _, inside, _ in rows]
    cdf = np.concatenate([np.concatenate([[0], np.cumsum(row)]) for row in counts])
    first, inside, order = zip(*rows, strict=True)
    return tables.Tables(np.array(first), np.array([len(row) for row in inside]), np.array(order), cdf)


def sample(rng, shape, family="gaussian"):
    """(symbols, indices): what the tables expect, at all scales."""
    indices = rng.integers(0, len(tables.SCALES), shape)
    draw = {"gaussian": rng.normal, "logistic": rng.logistic, "laplace": rng.laplace}[family]
    return np.rint(draw(0, tables.SCALES[indices])).astype(np.int32), indices


def assert_same_words(one, other):
    np.testing.assert_array_equal(one.head, other.head)
    np.testing.assert_array_equal(rans.flatten(one, fold=False), rans.flatten(other, fold=False))


@quick
@given(
    symbols=hnp.arrays(np.int32, st.integers(0, 25), elements=st.integers(INT32.min, INT32.max) | st.integers(-9, 9)),
    lanes=st.sampled_from([1, 2, 3, 8]),
    data=st.data(),
)
def test_kernels_and_reference_make_the_same_words(check_codec, symbols, lanes, data):
    table = data.draw(st.sampled_from([odd_tables(), tables.scale_tables("laplace")]))
    indices = data.draw(hnp.arrays(np.int64, symbols.shape, elements=st.integers(0, len(table) - 1)))
    plain = codecs.indexed(table, indices, kernels=False)
    expected = check_codec(plain, symbols, rans.empty_message(lanes))
    assert_same_words(check_codec(codecs.indexed(table, indices), symbols, rans.empty_message(lanes)), expected)
    rest, popped = plain.pop(expected)
    np.testing.assert_array_equal(popped, symbols)
    assert popped.dtype == np.int32


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 4, 5, 23])
def test_rows_of_vector_codecs_give_the_same_words(lanes, count):
    """Craystack's way: rows of all lanes, the incomplete last row as a substack of the first lanes."""
    table = tables.scale_tables("logistic")
    rng = np.random.default_rng(count)
    indices = rng.integers(30, 50, count)
    symbols = rng.integers(-2, 3, count).astype(np.int32)
    parts, data = [], []
    for begin in range(0, count, lanes):
        row = slice(begin, min(begin + lanes, count))
        used = row.stop - row.start
        start = table.offset[indices[row]] + symbols[row] - table.first[indices[row]]
        freq = table.cdf[start + 1] - table.cdf[start]
        vector = codecs.non_uniform(lambda _, a=table.cdf[start], b=freq: (a, b), lambda at: at, 16)
        parts.append(codecs.substack(vector, lambda head, used=used: head[:used]))
        data.append(None)
    expected = codecs.serial(parts).push(rans.empty_message(lanes), data)
    assert_same_words(codecs.indexed(table, indices).push(rans.empty_message(lanes), symbols), expected)


@pytest.mark.parametrize("family", tables.FAMILIES)
@pytest.mark.parametrize("shape", [(0,), (1, 1, 1), (3, 5, 7), (20, 30, 11)])
def test_arrays_come_back(check_codec, family, shape):
    symbols, indices = sample(np.random.default_rng(1), shape, family)
    message = check_codec(codecs.uniform(31), np.array([5, 6]), rans.empty_message(2))
    check_codec(codecs.indexed(tables.scale_tables(family), indices), symbols, message)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_does_not_matter(check_codec, order):
    symbols, indices = sample(np.random.default_rng(2), (6, 4))
    table = tables.scale_tables("gaussian")
    expected = codecs.indexed(table, indices.ravel()).push(rans.empty_message(3), symbols.ravel())
    laid = codecs.indexed(table, np.asarray(indices, np.uint8, order=order))
    assert_same_words(
        check_codec(laid, np.asarray(symbols, np.int64, order=order), rans.empty_message((3, 1))),
        rans.Message(expected.head[:, None], expected.tail),
    )


def test_many_escapes_at_once(check_codec):
    """Every symbol needs five times the words that the first buffer holds, and more than one word to decode."""
    symbols = np.where(np.arange(4001) % 2, INT32.min, INT32.max).astype(np.int32)
    codec = codecs.indexed(tables.scale_tables("gaussian"), np.zeros(4001, int))
    message = rans.empty_message(2)
    for part in np.split(symbols[:4000], 4):
        message = codecs.indexed(tables.scale_tables("gaussian"), np.zeros(1000, int)).push(message, part)
    assert rans.bits(message) > 1.2 * 32 * 4000
    check_codec(codec, symbols, message)
    whole = codecs.indexed(tables.scale_tables("gaussian"), np.zeros(4000, int))
    rest, popped = whole.pop(message)
    assert rans.bits(rest) == 0
    np.testing.assert_array_equal(popped.reshape(4, 1000), np.split(symbols[:4000], 4)[::-1])


def test_pops_read_over_the_joints_of_the_tail():
    """Many small pushes leave many small pieces; one pop takes them all, and many small pops take one piece apart."""
    table = tables.scale_tables("gaussian")
    symbols, indices = sample(np.random.default_rng(3), (30, 40))
    whole, rows = codecs.indexed(table, indices), codecs.serial([codecs.indexed(table, row) for row in indices])
    in_rows = rows.push(rans.empty_message(4), list(symbols))
    assert_same_words(whole.push(rans.empty_message(4), symbols), in_rows)
    np.testing.assert_array_equal(whole.pop(in_rows)[1], symbols)
    np.testing.assert_array_equal(rows.pop(rans.unflatten(rans.flatten(in_rows), 4))[1], symbols)


@pytest.mark.parametrize("family", tables.FAMILIES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 100, 1000, 20_000])
def test_size_against_the_ideal(family, count):
    table = tables.scale_tables(family)
    symbols, indices = sample(np.random.default_rng(count), count, family)
    message = codecs.indexed(table, indices).push(rans.empty_message(codecs.LANES), symbols)
    ideal = tables.ideal_bits(table, symbols, indices).sum()
    assert rans.bits(message) == pytest.approx(ideal, rel=1e-5, abs=0.01)
    assert len(rans.to_bytes(message)) <= 1.001 * ideal / 8 + 16


def test_size_of_next_to_nothing():
    """A million zeros under the sharpest table: 66 bits, and the coder adds none of its own."""
    table = tables.scale_tables("gaussian")
    zeros = np.zeros(1_000_000, np.int32)
    message = codecs.indexed(table, zeros).push(rans.empty_message(codecs.LANES), zeros)
    ideal = tables.ideal_bits(table, zeros, zeros).sum()
    assert ideal < 70
    assert len(rans.to_bytes(message)) <= 1.001 * ideal / 8 + 16


def test_indexed_refuses():
    table = tables.scale_tables("gaussian")
    for indices in ([64], [-1], [0.5]):
        with pytest.raises(ValueError, match="indices"):
            codecs.indexed(table, indices)
    codec = codecs.indexed(table, [1, 2])
    for symbols, says in (([1, 2, 3], "shape"), ([2**31, 0], "int32"), ([0.5, 1], "integers")):
        with pytest.raises(ValueError, match=says):
            codec.push(rans.empty_message(1), np.array(symbols))


@pytest.mark.parametrize("family", tables.FAMILIES)
def test_golden_tables(family):
    """Two machines with these checksums code alike. A change here is a change of format."""
    assert tables.scale_tables(family).checksum == GOLDEN["checksums"][family]


@pytest.mark.parametrize("case", GOLDEN["messages"], ids=lambda case: f"{case['family']}-{case['lanes']}")
def test_golden_words(check_codec, case):
    codec = codecs.indexed(tables.scale_tables(case["family"]), np.array(case["indices"]))
    symbols = np.array(case["symbols"])
    message = check_codec(codec, symbols, rans.empty_message(case["lanes"]))
    assert rans.flatten(message).tolist() == case["words"]


def test_golden_file():
    data = bytes.fromhex(GOLDEN["file"])
    file = bitstream.unpack(data)
    file.check()
    assert file.header == bitstream.Header(0, 19, 7, "RGBA", "0123456789abcdef", lanes=2, levels=2, tile=64)
    assert file.chunks == {"eXIF": b"Exif", "ALPH": b"abc"}
    streams = [file.stream(1, 0), file.stream(2, 0)]
    assert bitstream.pack(file.header, [[stream] for stream in streams], file.chunks) == data
    case = GOLDEN["messages"][0]
    for stream, part in zip(streams, (slice(8), slice(8, 20)), strict=True):
        codec = codecs.indexed(tables.scale_tables(case["family"]), np.array(case["indices"])[part])
        rest, popped = codec.pop(rans.from_bytes(stream, file.header.lanes))
        assert popped.tolist() == case["symbols"][part]
        assert rans.bits(rest) == 0

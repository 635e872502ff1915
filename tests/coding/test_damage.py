"""Damaged words end in a MessageError or in wrong symbols: never in a crash, a hang or another error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import codecs, rans, tables

quick = settings(max_examples=30)
COUNT = 240


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
def test_random_bytes(words, lanes):
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


def test_every_truncation(words):
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

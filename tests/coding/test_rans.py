"""Messages: Craystack's own words, inverses, folding of heads, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import codecs, heads, rans

CRAYSTACK = json.loads((Path(__file__).parents[1] / "golden" / "craystack.json").read_text(encoding="utf-8"))["cases"]
LOWEST, LIMIT = 1 << 31, 1 << 63
quick = settings(max_examples=40)


def message_of_craystack(case):
    message = rans.empty_message(case["lanes"])
    if case["kind"] == "push":
        for interval in case["pushes"]:
            message = rans.push(message, interval["start"], interval["freq"], case["precision"])
        return message
    rows = codecs.serial([codecs.categorical(p, case["precision"]) for p in case["p"]])
    return rows.push(message, [np.array(symbols) for symbols in case["symbols"]])


@st.composite
def lines(draw, lanes, limit):
    """(start, freq, total): one interval for each lane on lines of one common length up to limit."""
    total = draw(st.integers(1, limit))
    freq = [draw(st.integers(1, total)) for _ in range(lanes)]
    start = [draw(st.integers(0, total - f)) for f in freq]
    return start, freq, total


@st.composite
def messages(draw, lanes):
    head = np.array([draw(st.integers(LOWEST, LIMIT - 1)) for _ in range(lanes)], np.uint64)
    words = np.array(draw(st.lists(st.integers(0, 2**32 - 1), min_size=4 * lanes, max_size=4 * lanes)), np.uint32)
    return rans.Message(head, (words[:3], (words[3:], ())))


def assert_same(message, expected):
    np.testing.assert_array_equal(rans.flatten(message, fold=False), rans.flatten(expected, fold=False))


@pytest.mark.parametrize("case", CRAYSTACK, ids=lambda case: f"{case['kind']}-{case['lanes']}-{case['precision']}")
def test_craystacks_words(case):
    message = message_of_craystack(case)
    if "head" in case:
        assert [str(head) for head in message.head] == case["head"]
    assert rans.flatten(message, fold=False).tolist() == case["rans_flatten"]
    assert rans.flatten(message).tolist() == case["folded_flatten"]
    assert_same(rans.unflatten(np.array(case["folded_flatten"], np.uint32), case["lanes"]), message)
    assert_same(rans.unflatten(np.array(case["rans_flatten"], np.uint32), case["lanes"], fold=False), message)


@quick
@given(data=st.data(), lanes=st.integers(1, 5))
def test_pop_undoes_push(data, lanes):
    message = data.draw(messages(lanes))
    precision = data.draw(st.integers(0, 31))
    start, freq, _ = data.draw(lines(lanes, 1))
    freq = [data.draw(st.integers(1, 1 << precision)) for _ in freq]
    start = [data.draw(st.integers(0, (1 << precision) - f)) for f in freq]
    longer = rans.push(message, start, freq, precision)
    assert np.all((longer.head >= LOWEST) & (longer.head < LIMIT))
    position, finish = rans.pop(longer, precision)
    np.testing.assert_array_equal(position, rans.peek(longer, precision))
    assert np.all((position >= start) & (position < np.add(start, freq)))
    assert_same(finish(start, freq), message)


@quick
@given(data=st.data(), lanes=st.integers(1, 5), precision=st.integers(0, 31))
def test_push_undoes_pop(data, lanes, precision):
    """What bits-back coding needs: any message may be popped from, and pushing restores it."""
    message = data.draw(messages(lanes))
    position, finish = rans.pop(message, precision)
    assert_same(rans.push(finish(position, 1), position, 1, precision), message)


@quick
@given(data=st.data(), lanes=st.integers(1, 4))
def test_finer_precision_is_a_bijection(data, lanes):
    message = data.draw(messages(lanes))
    start, freq, total = data.draw(lines(lanes, 1 << 31))
    longer = rans.push_with_finer_precision(message, start, freq, total)
    assert np.all((longer.head >= LOWEST) & (longer.head < LIMIT))
    position, finish = rans.pop_with_finer_precision(longer, total)
    assert_same(finish(start, freq), message)
    position, finish = rans.pop_with_finer_precision(message, total)
    assert_same(rans.push_with_finer_precision(finish(position, 1), position, 1, total), message)


def test_finer_precision_at_the_bound_where_a_plain_push_fails():
    """https://github.com/j-towns/craystack/issues/14: the greatest head, popped in thirds, ends between the bound at
    which a push would spill and the one at which the pop really stops, so a push must look again after multiplying."""
    message = rans.Message(np.array([LIMIT - 1], np.uint64), ())
    position, finish = rans.pop_with_finer_precision(message, 3)
    shorter = finish(position, 1)
    assert (LOWEST // 3) << 32 < int(shorter.head[0])
    assert_same(rans.push_with_finer_precision(shorter, position, 1, 3), message)


def test_finer_precision_agrees_with_powers_of_two():
    message = rans.empty_message(3)
    for start, freq in [(3, 7), (100, 28), (0, 1), (127, 1)] * 9:
        finer = rans.push_with_finer_precision(message, start, freq, 128)
        message = rans.push(message, start, freq, 7)
        assert_same(finer, message)


@quick
@given(
    data=st.data(),
    shape=st.sampled_from([(1,), (2,), (3,), (2, 2), (7,), (3, 4), (16,)]),
    fold=st.booleans(),
)
def test_unflatten_undoes_flatten(data, shape, fold):
    head, tail = data.draw(messages(int(np.prod(shape))))
    message = rans.Message(head.reshape(shape), tail)
    words = rans.flatten(message, fold=fold)
    assert words.dtype == np.uint32 and words.ndim == 1
    back = rans.unflatten(words, shape, fold=fold)
    assert back.head.shape == shape
    assert_same(back, message)
    if fold:
        assert_same(rans.from_bytes(rans.to_bytes(message), shape), message)


@pytest.mark.parametrize("length", range(31, 63))
def test_folding_at_the_ends_of_each_length(length):
    """A float logarithm rounds 2**60 - 1 up to 60, and a head coded that way would not come back."""
    ends = np.array([1 << length, (1 << length) + 1, (1 << length + 1) - 1, (1 << length + 1) - 2], np.uint64)
    message = rans.Message(np.concatenate([np.full(4, LOWEST, np.uint64), ends]), ())
    assert_same(heads.resize(heads.resize(message, 4), 8), message)


@pytest.mark.parametrize("lanes", [1, 2, 3, 16, 100])
def test_a_lane_costs_less_than_36_bits(lanes):
    rng = np.random.default_rng(lanes)
    message = rans.Message(np.exp2(rng.uniform(31, 62.99, lanes)).astype(np.uint64), ())
    size = 32 * rans.flatten(message).size
    assert rans.bits(message) + 32 <= size <= rans.bits(message) + 64 + 35.6 * (lanes - 1)
    if lanes == 1:
        assert size == 64


def test_bits_count_the_information():
    message = rans.empty_message(2)
    assert rans.bits(message) == 0
    for _ in range(1000):
        message = rans.push(message, [5, 9], [1, 16], 8)
    assert rans.bits(message) == pytest.approx(1000 * (8 + 4), abs=0.01)


def test_old_messages_stay_valid():
    message = rans.push(rans.empty_message(2), [1, 2], [3, 4], 16)
    words = rans.flatten(message, fold=False)
    longer = message
    for _ in range(20):
        longer = rans.push(longer, [1, 2], [3, 4], 16)
    assert len(longer.tail) == 2
    position, finish = rans.pop(longer, 16)
    first, second = finish([1, 2], [3, 4]), finish([1, 2], [3, 4])
    assert_same(first, second)
    np.testing.assert_array_equal(rans.flatten(message, fold=False), words)


def test_words_may_be_changed_after_unflatten():
    words = rans.flatten(rans.push(rans.empty_message(1), 7, 1, 31))
    message = rans.unflatten(words, 1)
    words[:] = 0
    assert rans.peek(message, 31) == 7


@pytest.mark.parametrize("shape", [(), 0, (0,), (2, 0), -1])
def test_a_head_needs_a_lane(shape):
    with pytest.raises(ValueError, match="at least one lane"):
        rans.empty_message(shape)


@pytest.mark.parametrize(
    ("start", "freq", "precision", "says"),
    [
        (0, 0, 16, "interval"),
        (0, 65537, 16, "interval"),
        (65535, 2, 16, "interval"),
        (2**64 - 1, 1, 16, "interval"),
        (-1, 1, 16, "negative"),
        (0, 1, 32, "precision"),
        (0, 1, -1, "negative"),
        (0.5, 1, 16, "integers"),
        ([0, 1, 2], 1, 16, "does not fit"),
    ],
)
def test_push_refuses(start, freq, precision, says):
    start = np.uint64(start) if start == 2**64 - 1 else start
    with pytest.raises(ValueError, match=says):
        rans.push(rans.empty_message(2), start, freq, precision)


def test_pop_refuses_another_interval():
    message = rans.push(rans.empty_message(1), 10, 5, 8)
    position, finish = rans.pop(message, 8)
    for start, freq in [(int(position[0]) + 1, 5), (0, int(position[0]))]:
        with pytest.raises(ValueError, match="position"):
            finish(start, freq)


@pytest.mark.parametrize("total", [0, 2**31 + 1])
def test_finer_precision_refuses_a_line(total):
    with pytest.raises(ValueError, match="total"):
        rans.push_with_finer_precision(rans.empty_message(1), 0, 1, total)


def test_an_empty_message_runs_out():
    position, finish = rans.pop(rans.empty_message(2), 16)
    with pytest.raises(rans.MessageError, match="ran out"):
        finish(position, 1)


@pytest.mark.parametrize(
    ("words", "shape", "fold"),
    [([], 1, True), ([1], 1, True), ([1, 2], 2, True), ([1, 2], 2, False), ([0, 5], 1, True), ([2**31, 0], 1, False)],
)
def test_unflatten_refuses_words_that_are_no_message(words, shape, fold):
    with pytest.raises(rans.MessageError):
        rans.unflatten(np.array(words, np.uint32), shape, fold=fold)


def test_unflatten_refuses_other_arrays():
    for words in (np.zeros((2, 2), np.uint32), np.ones(4), np.ones(4, np.int64)):
        with pytest.raises(ValueError, match="uint32"):
            rans.unflatten(words, 1)
    with pytest.raises(rans.MessageError, match="whole words"):
        rans.from_bytes(b"12345", 1)

"""Against Craystack itself; collected only where it can be imported (conftest.py).

git clone https://github.com/j-towns/craystack && pip install -e craystack
"""

import craystack
import numpy as np
import pytest

from nlvc.coding import codecs, rans, tables

rng = np.random.default_rng(0)


def assert_same(message, theirs):
    np.testing.assert_array_equal(message.head, theirs[0])
    np.testing.assert_array_equal(rans.flatten(message, fold=False), craystack.rans.flatten(theirs))
    np.testing.assert_array_equal(rans.flatten(message), craystack.flatten(theirs))


@pytest.mark.parametrize("lanes", [1, 2, 3, 16, 50])
@pytest.mark.parametrize("precision", [1, 8, 16, 27])
def test_push_and_pop(lanes, precision):
    ours, theirs = rans.empty_message(lanes), craystack.base_message(lanes)
    freq = rng.integers(1, (1 << precision) + 1, (60, lanes))
    start = rng.integers(0, (1 << precision) - freq + 1)
    for row in range(60):
        ours = rans.push(ours, start[row], freq[row], precision)
        theirs = craystack.rans.push(theirs, start[row], freq[row], precision)
    assert_same(ours, theirs)
    for row in reversed(range(60)):
        position, finish = rans.pop(ours, precision)
        their_position, their_finish = craystack.rans.pop(theirs, precision)
        np.testing.assert_array_equal(position, their_position)
        ours, theirs = finish(start[row], freq[row]), their_finish(start[row], freq[row])
        assert_same(ours, theirs)


@pytest.mark.parametrize("total", [3, 1000, 65535, 10**9])
def test_finer_precision(total):
    ours, theirs = rans.empty_message(4), craystack.base_message(4)
    for _ in range(60):
        freq = rng.integers(1, total + 1, 4)
        start = rng.integers(0, total - freq + 1)
        ours = rans.push_with_finer_precision(ours, start, freq, total)
        theirs = craystack.rans.push_with_finer_prec(theirs, start, freq, total)
        assert_same(ours, theirs)
    position, finish = rans.pop_with_finer_precision(ours, total)
    their_position, their_finish = craystack.rans.pop_with_finer_prec(theirs, total)
    np.testing.assert_array_equal(position, their_position)
    assert_same(finish(position, 1), their_finish(position, 1))


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4)])
def test_codecs(shape):
    weights = rng.random((*shape, 9))
    probabilities = weights / weights.sum(-1, keepdims=True)
    data = [rng.integers(0, 9, shape) for _ in range(5)] + [rng.integers(0, 1 << 12, shape) for _ in range(5)]
    ours = codecs.serial([codecs.categorical(probabilities, 14)] * 5 + [codecs.uniform(12)] * 5)
    theirs = craystack.from_iterable([craystack.Categorical(probabilities, 14)] * 5 + [craystack.Uniform(12)] * 5)
    their_data = [datum.astype(np.uint64) for datum in data]
    (their_message,) = theirs.push(craystack.base_message(shape), their_data)
    assert_same(ours.push(rans.empty_message(shape), data), their_message)


def test_a_message_moves_between_the_two(check_codec):
    """Not only the words: the message itself is of the same kind, so each continues what the other began."""
    begun = craystack.base_message(2)
    (begun,) = craystack.Uniform(16).push(begun, np.array([7, 9], np.uint64))
    table = tables.scale_tables("gaussian")
    indices = rng.integers(0, 64, 101)
    symbols = np.rint(rng.normal(0, tables.SCALES[indices])).astype(np.int32)
    longer = check_codec(codecs.indexed(table, indices), symbols, rans.Message(*begun))
    rest, _ = codecs.indexed(table, indices).pop(longer)
    _, popped = craystack.Uniform(16).pop(rest)
    np.testing.assert_array_equal(popped, [7, 9])

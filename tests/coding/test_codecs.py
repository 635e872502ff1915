"""Each codec gives back data and message; composed ones in the right order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.coding import codecs, rans, tables

quick = settings(max_examples=30)


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3)])
def test_uniform(check_codec, rng, shape):
    message = rans.empty_message(shape)
    precision = rng.integers(0, 32, shape)
    longer = check_codec(codecs.uniform(precision), rng.integers(0, 1 << precision), message)
    assert rans.bits(longer) == pytest.approx(precision.sum(), abs=1e-3)
    with pytest.raises(ValueError, match="interval"):
        codecs.uniform(4).push(message, 16)


@quick
@given(data=st.data(), size=st.integers(1, 20), lanes=st.integers(1, 4))
def test_categorical(check_codec, data, size, lanes):
    weights = np.array(data.draw(st.lists(st.integers(0, 99), min_size=size * lanes, max_size=size * lanes)))
    weights = weights.reshape(lanes, size) + 1e-3
    codec = codecs.categorical(weights / weights.sum(-1, keepdims=True), 12)
    check_codec(codec, np.array([data.draw(st.integers(0, size - 1)) for _ in range(lanes)]), rans.empty_message(lanes))


def test_categorical_gives_every_symbol_a_count(check_codec):
    check_codec(codecs.categorical([1.0, 0.0, 0.0], 2), np.array([0, 1, 2, 1]))


@pytest.mark.parametrize(
    ("probabilities", "precision", "says"),
    [([0.5, 0.4], 16, "sum to 1"), ([1.5, -0.5], 16, "negative"), ([np.nan], 16, "sum to 1"), ([0.2] * 5, 2, "fit")],
)
def test_categorical_refuses(probabilities, precision, says):
    with pytest.raises(ValueError, match=says):
        codecs.categorical(probabilities, precision)


def test_from_table_shared_and_by_lane(check_codec):
    shared = codecs.from_table([0, 1, 200, 256], 8, first=-1)
    for symbol in (-1, 0, 1):
        check_codec(shared, np.full(4, symbol))
    by_lane = codecs.from_table([[0, 1, 256], [0, 255, 256], [0, 8, 256], [0, 128, 256]], 8)
    longer = check_codec(by_lane, np.array([1, 0, 0, 1]))
    assert rans.bits(longer) == pytest.approx(5 + 1, abs=0.02)


def test_from_table_refuses():
    for cdf in ([0, 5, 5, 256], [1, 256], [0, 255], [[0, 256], [0, 255]]):
        with pytest.raises(ValueError, match="cdf"):
            codecs.from_table(cdf, 8)
    for symbol in (-1, 2):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            codecs.from_table([0, 5, 256], 8).push(rans.empty_message(1), symbol)


def test_non_uniform(check_codec):
    """Symbols may be anything that two functions know: here the odd numbers 1, 3, ..., 15 with eight counts each."""
    codec = codecs.non_uniform(lambda odd: ((odd - 1) * 4, 8), lambda at: (at // 8).astype(int) * 2 + 1, 6)
    check_codec(codec, np.array([1, 15, 7, 9]))


def test_serial_pops_in_the_order_given(check_codec):
    parts = [codecs.uniform(p) for p in (3, 9, 31)]
    data = [np.array(values) for values in ([1, 2, 3, 4], [500, 0, 511, 9], [2**31 - 1, 0, 5, 2])]
    longer = check_codec(codecs.serial(parts), data)
    rest, first = parts[0].pop(longer)
    np.testing.assert_array_equal(first, data[0])
    np.testing.assert_array_equal(parts[1].pop(rest)[1], data[1])


def test_repeat(check_codec, rng):
    check_codec(codecs.repeat(codecs.uniform(7), 5), list(rng.integers(0, 128, (5, 4))))
    check_codec(codecs.repeat(codecs.uniform(7), 0), [])


def test_codecs_nest(check_codec, rng):
    inner = codecs.serial([codecs.uniform(4), codecs.repeat(codecs.uniform(2), 3)])
    data = [[rng.integers(0, 16, 4), list(rng.integers(0, 4, (3, 4)))] for _ in range(2)]
    check_codec(codecs.repeat(inner, 2), data)


def test_from_generator_dependent(check_codec, rng):
    def precision_first():
        precision = yield codecs.uniform(4)
        yield codecs.uniform(precision)

    precision = rng.integers(0, 16, 4)
    check_codec(codecs.from_generator(precision_first), [precision, rng.integers(0, 1 << precision)])


def test_a_chain_of_levels_is_one_generator(check_codec, rng):
    """z_3 chooses the tables of z_2, z_2 those of z_1; the decoder meets z_3 at the front of the words."""
    gaussian = tables.scale_tables("gaussian")

    def levels():
        z_3 = yield codecs.indexed(gaussian, np.full((2, 2, 3), 40))
        z_2 = yield codecs.indexed(gaussian, np.clip(np.abs(z_3).repeat(2, 0).repeat(2, 1), 0, 63))
        yield codecs.indexed(gaussian, np.clip(np.abs(z_2).repeat(2, 0).repeat(2, 1), 0, 63))

    data = [rng.integers(-60, 60, shape).astype(np.int32) for shape in ((2, 2, 3), (4, 4, 3), (8, 8, 3))]
    longer = check_codec(codecs.from_generator(levels), data, rans.empty_message(codecs.LANES))
    words = rans.flatten(longer)
    top = codecs.indexed(gaussian, np.full((2, 2, 3), 40))
    np.testing.assert_array_equal(top.pop(rans.unflatten(words[:40], codecs.LANES))[1], data[0])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_from_generator_wants_one_datum_for_each_codec(count):
    codec = codecs.serial([codecs.uniform(4)] * 2)
    with pytest.raises(ValueError, match="data"):
        codec.push(rans.empty_message(1), [np.array([1])] * count)


@pytest.mark.parametrize(
    "view", [lambda head: head[1], lambda head: head[:, ::2], lambda head: head.T[1:], lambda head: head[::-1]]
)
def test_substack_touches_its_lanes_only(check_codec, rng, view):
    message = rans.empty_message((2, 3))
    data = list(rng.integers(0, 1 << 16, (9, *view(message.head).shape)))
    longer = check_codec(codecs.substack(codecs.repeat(codecs.uniform(16), 9), view), data, message)
    touched = np.zeros((2, 3), bool)
    view(touched)[...] = True
    np.testing.assert_array_equal(longer.head != message.head, touched)


def test_substack_refuses_a_lane_twice():
    codec = codecs.substack(codecs.uniform(4), lambda head: head[[0, 0]])
    with pytest.raises(ValueError, match="twice"):
        codec.push(rans.empty_message(2), np.array([1, 2]))


def test_substacks_with_few_lanes_share_one_tail(check_codec, rng):
    halves = [
        codecs.substack(codecs.repeat(codecs.uniform(16), 5), view)
        for view in (lambda head: head[:1], lambda head: head[1:])
    ]
    data = [list(rng.integers(0, 1 << 16, (5, lanes))) for lanes in (1, 3)]
    check_codec(codecs.serial(halves), data)

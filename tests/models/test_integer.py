"""The exact layers against integers of any size, from the smallest ratio to the largest accumulator."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.models import integer
from nlvc.models.integer import ACCUMULATOR_LIMIT, Scale

RNG = np.random.default_rng(0)
LARGEST = ACCUMULATOR_LIMIT - 1
ratios = st.builds(lambda power, fraction: 2.0**power * fraction, st.integers(-40, 12), st.floats(1, 2, width=32))
reaches = st.sampled_from([1, 127, 128, 4096, 1 << 14])
extremes = st.sampled_from([0, 1, -1, LARGEST, -LARGEST, LARGEST - 1])
accumulators = st.lists(st.integers(-LARGEST, LARGEST) | extremes | st.integers(-300, 300), min_size=1, max_size=20)

requantise = jax.jit(integer.requantise)


def by_hand(x, by):
    """One Python integer through the formula of Scale's docstring."""
    limit, before, multiplier, after = by
    x = min(max(x, -limit), limit)
    x = halves_up(Fraction(x, 2**before))
    assert abs(x) <= 2**15 and 0 <= multiplier < 2**15, "their product has to fit"
    return halves_up(Fraction(x * multiplier, 2**after))


def halves_up(number):
    return (number + Fraction(1, 2)).__floor__()


def fields(by, channel=0):
    return tuple(int(values[channel]) for values in by)


def ints(*shape, low=-128, high=128, kind=np.int8):
    return RNG.integers(low, high, shape, kind)


def as_int64(x):
    return np.asarray(x, np.int64)


# --- Multiplication by a ratio ---


@settings(max_examples=200)
@given(xs=accumulators, ratio=ratios, reach=reaches)
def test_requantise_is_its_formula_in_whole_numbers(xs, ratio, reach):
    by = integer.scale(np.array([ratio]), reach)
    # A fixed length, so that it is compiled once.
    x = np.resize(np.array(xs, np.int32), 20)[:, None]
    y = requantise(x, by)
    assert y.dtype == jnp.int32
    assert y.ravel().tolist() == [by_hand(int(value), fields(by)) for value in x.ravel()]


@settings(max_examples=300)
@given(xs=accumulators, ratio=ratios, reach=reaches)
def test_scale_is_the_ratio_to_fifteen_bits(xs, ratio, reach):
    by = fields(integer.scale(np.array([ratio]), reach))
    for x in xs:
        exact = Fraction(ratio) * x
        if abs(exact) > reach:
            continue
        # Half a unit for the result, half of one before the first shift, half of the multiplier's last bit. Where that
        # is not normal (ratios so small that every result is 0), it is 2^15 of 2^-31.
        error = Fraction(1, 2) + Fraction(ratio) * 2 ** by[1] / 2 + abs(exact) / 2**14 + Fraction(1, 2**15)
        assert abs(by_hand(x, by) - exact) <= error


@settings(max_examples=300)
@given(ratio=ratios, reach=reaches)
def test_larger_results_are_cut_a_little_beyond_the_reach(ratio, reach):
    by = fields(integer.scale(np.array([ratio]), reach))
    most, least = by_hand(LARGEST, by), by_hand(-LARGEST, by)
    assert most <= reach + 3 + ratio and least >= -(reach + 3 + ratio)
    if Fraction(ratio) * LARGEST >= reach + 1:
        assert most >= reach and least <= -reach


@settings(max_examples=100)
@given(ratio=ratios, reach=reaches, x=st.integers(-LARGEST, LARGEST - 1))
def test_requantise_never_decreases(ratio, reach, x):
    by = fields(integer.scale(np.array([ratio]), reach))
    assert by_hand(x, by) <= by_hand(x + 1, by)


def test_each_channel_has_its_own_ratio():
    values = 2.0 ** np.linspace(-30, 13, 44)
    by = integer.scale(values, 127)
    assert all(field.shape == (44,) for field in by)
    assert [field.dtype for field in by] == [np.int32, np.int8, np.int16, np.int8]
    x = ints(3, 2, 5, 44, low=-LARGEST, high=LARGEST, kind=np.int32) >> ints(44, low=0, high=30, kind=np.int32)
    y = np.asarray(integer.requantise(jnp.asarray(x), by))
    for channel in range(44):
        expected = [by_hand(int(value), fields(by, channel)) for value in x[..., channel].ravel()]
        assert y[..., channel].ravel().tolist() == expected


def test_both_shifts_round_halves_up():
    def at(x, before, after):
        one = Scale(*(np.array([value], np.int32) for value in (1000, before, 1, after)))
        return requantise(np.array(x, np.int32)[:, None], one).ravel().tolist()

    assert at([-3, -2, -1, 0, 1, 2, 3], 1, 0) == [-1, -1, 0, 0, 1, 1, 2]
    assert at([-3, -2, -1, 0, 1, 2, 3], 0, 1) == [-1, -1, 0, 0, 1, 1, 2]
    assert at([-6, -5, -3, -2, 2, 5, 6], 0, 2) == [-1, -1, -1, 0, 1, 1, 2]
    assert at([-1001, -1000, 1000, 1001], 0, 0) == [-1000, -1000, 1000, 1000]


def test_a_ratio_of_one_changes_nothing():
    x = np.arange(-128, 129, dtype=np.int32)[:, None]
    np.testing.assert_array_equal(requantise(x, integer.scale(np.array([1.0]), 128)), x)


@pytest.mark.parametrize("ratio", [0.0, 1e-300, 2.0**-60])
def test_the_smallest_ratios_give_zero(ratio):
    by = integer.scale(np.array([ratio]), 127)
    assert by_hand(LARGEST, fields(by)) == by_hand(-LARGEST, fields(by)) == 0


@pytest.mark.parametrize("ratio", [2.0**14, 1e9, np.inf])
def test_scale_refuses_ratios_that_it_has_no_bits_for(ratio):
    integer.scale(np.array([2.0**14 - 1e-9]), 127)
    with pytest.raises(ValueError, match="below 2\\^14"):
        integer.scale(np.array([1.0, ratio]), 127)


def test_to_int8_cuts():
    x = jnp.array([-(2**31), -129, -128, 0, 127, 128, 2**31 - 1], jnp.int32)
    y = integer.to_int8(x)
    assert y.dtype == jnp.int8 and y.tolist() == [-128, -128, -128, 0, 127, 127, 127]


def test_lookup_reads_the_table_at_every_int8():
    table = ints(256)
    x = np.arange(-128, 128).astype(np.int8).reshape(2, 4, 4, 8)
    y = integer.lookup(jnp.asarray(x), table)
    assert y.dtype == jnp.int8
    np.testing.assert_array_equal(np.asarray(y).ravel(), table)


# --- Sums ---


def convolve_by_hand(x, kernel, bias):
    size = kernel.shape[0]
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    y = np.zeros((x.shape[0], height, width, kernel.shape[3]), np.int64)
    for row in range(height):
        for column in range(width):
            part = x[:, row : row + size, column : column + size].astype(np.int64)
            y[:, row, column] = np.tensordot(part, kernel.astype(np.int64), 3)
    return y + bias


@pytest.mark.parametrize("size", [1, 3])
def test_convolve_is_the_sum_of_products(size):
    x, kernel = ints(2, 6, 5, 7), ints(size, size, 7, 4)
    bias = ints(4, low=-(2**29), high=2**29, kind=np.int32)
    y = jax.jit(integer.convolve)(x, kernel, bias)
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, convolve_by_hand(x, kernel, bias))


@pytest.mark.parametrize("value", [-128, 127])
def test_convolve_at_its_extremes(value):
    """512 channels of the largest products: neither int16 nor a float's mantissa holds their sum."""
    x, kernel = np.full((1, 3, 3, 512), value, np.int8), np.full((3, 3, 512, 2), -127, np.int8)
    x[..., 0] = 1
    y = integer.convolve(jnp.asarray(x), kernel, np.array([1, -3], np.int32))
    assert np.asarray(y).ravel().tolist() == [-127 * 9 * (511 * value + 1) + b for b in (1, -3)]


LIMB = 2**15 - 129


@settings(max_examples=50)
@given(data=st.data(), channels=st.sampled_from([1, 2, 33]))
def test_dot_is_the_sum_of_products_of_sixteen_bits(data, channels):
    value = st.integers(-LIMB, LIMB) | st.sampled_from([-LIMB, LIMB, -129, -128, -127, 127, 128, 129, 0])
    x = np.array(data.draw(st.lists(value, min_size=channels, max_size=channels)), np.int32)
    weights = np.array(data.draw(st.lists(value, min_size=channels, max_size=channels)), np.int32)
    # The largest weights that keep the sum in its limits.
    while (np.abs(as_int64(x)) * np.abs(as_int64(weights))).sum() >= ACCUMULATOR_LIMIT:
        weights = weights // 2
    high, low = integer.limbs(weights[:, None])
    y = integer.dot(jnp.asarray(x[None, None, None]), high, low)
    assert y.dtype == jnp.int32 and y.item() == as_int64(x) @ as_int64(weights)


def test_dot_of_whole_planes():
    x = ints(2, 3, 4, 20, low=-LIMB, high=LIMB + 1, kind=np.int32)
    weights = ints(20, 6, low=-1600, high=1600, kind=np.int32)
    high, low = integer.limbs(weights)
    np.testing.assert_array_equal(jax.jit(integer.dot)(x, high, low), as_int64(x) @ as_int64(weights))


@pytest.mark.parametrize("sign", [1, -1])
def test_dot_forgives_what_overflows_on_the_way(sign):
    """128 * 128 is 65536 less 65536 and more 16384: of 65,000 such, each part is beyond int32, but not their sum."""
    x = np.full((1, 1, 1, 65_000), sign * 128, np.int32)
    high, low = integer.limbs(np.full((65_000, 1), 128))
    assert 65_000 * 65_536 > 2**31 > 65_000 * 16_384
    assert integer.dot(jnp.asarray(x), high, low).item() == sign * 65_000 * 16_384


def test_limbs_are_the_number():
    weights = np.arange(-LIMB, LIMB + 1)
    high, low = integer.limbs(weights)
    assert high.dtype == low.dtype == np.int8
    np.testing.assert_array_equal(256 * as_int64(high) + low, weights)


def test_dot_squares_is_the_sum_of_squares_with_weights():
    x = ints(2, 3, 4, 40, low=-127, high=128, kind=np.int32)
    x[0, 0, 0] = np.arange(-127, -87)
    x[0, 0, 1] = 127
    weights = ints(40, 6, low=0, high=128)
    weights[:, 0] = 127
    y = jax.jit(integer.dot_squares)(x, weights)
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, as_int64(x) ** 2 @ as_int64(weights))


def test_dot_squares_of_every_number():
    x = np.arange(-127, 128, dtype=np.int32).reshape(1, 1, 255, 1)
    y = integer.dot_squares(jnp.asarray(x), np.ones((1, 1), np.int8))
    np.testing.assert_array_equal(y, x**2)


# --- The limit of the sums ---


def test_check_accumulators_raises_exactly_at_its_limit():
    weights = np.full((3, 3, 4, 2), 127, np.int8)
    weights[..., 1] = -127
    sums = 9 * 4 * 127 * 128
    for sign in (1, -1):
        integer.check_accumulators("layer", weights, 128, np.array([sign * (LARGEST - sums), 0]))
        with pytest.raises(ValueError, match=f"layer: its sums may reach {ACCUMULATOR_LIMIT},"):
            integer.check_accumulators("layer", weights, 128, np.array([0, sign * (ACCUMULATOR_LIMIT - sums)]))


def test_check_accumulators_counts_each_input_by_its_own_largest():
    weights = np.array([[1, 0], [0, 1000], [1, 1]])
    largest = np.array([LARGEST - 5, 1_000_000, 5])
    integer.check_accumulators("dot", weights, largest)
    for place in (0, 2):
        with pytest.raises(ValueError, match="dot"):
            integer.check_accumulators("dot", weights, largest + np.eye(3, dtype=int)[place])
    # In a kernel they repeat at each of its positions.
    kernel = np.zeros((3, 3, 2, 1), np.int8)
    kernel[:, :, 1] = 1
    integer.check_accumulators("kernel", kernel, np.array([LARGEST, LARGEST // 9]))
    with pytest.raises(ValueError, match="kernel"):
        integer.check_accumulators("kernel", kernel, np.array([0, LARGEST // 9 + 1]))


def test_the_largest_accumulator_that_is_allowed_survives_requantisation():
    """Half a unit is still added to it before the shift."""
    for before in range(16):
        by = Scale(*(np.array([v], np.int32) for v in (LARGEST, before, 1, 0)))
        x = np.array([[LARGEST], [-LARGEST]], np.int32)
        assert requantise(x, by).ravel().tolist() == [halves_up(Fraction(int(v), 2**before)) for v in x.ravel()]

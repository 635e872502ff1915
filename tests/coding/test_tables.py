"""Integer tables: what they must be, how close they come to the densities, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from nlvc.coding import tables

quick = settings(max_examples=40)
CDFS = {
    "gaussian": special.ndtr,
    "logistic": special.expit,
    "laplace": lambda x: np.where(x < 0, 0.5 * np.exp(-np.abs(x)), 1 - 0.5 * np.exp(-np.abs(x))),
}


def masses(family, scale, reach):
    """Masses of the unit bins at -reach..reach, by the textbook."""
    edges = np.arange(-reach, 1) - 0.5
    left = np.diff(CDFS[family](edges / scale))
    return np.concatenate([left, [1 - 2 * CDFS[family](np.array(-0.5 / scale))], left[::-1]])


def assert_tables(table):
    assert len(table.offset) == len(table) + 1
    for k in range(len(table)):
        counts = table.counts(k)
        assert counts.size == table.size[k] + 1
        assert counts.sum() == 1 << 16 and counts.min() >= 1


def test_scales():
    assert len(tables.SCALES) == 64
    assert tables.SCALES[0] == pytest.approx(0.11) and tables.SCALES[-1] == pytest.approx(256)
    np.testing.assert_allclose(np.diff(np.log(tables.SCALES)), np.log(256 / 0.11) / 63)


@pytest.mark.parametrize("family", tables.FAMILIES)
def test_scale_tables(family):
    table = tables.scale_tables(family)
    assert len(table) == 64 and table is tables.scale_tables(family)
    assert_tables(table)
    np.testing.assert_array_equal(table.first, -(table.size // 2))
    assert np.all(table.size % 2 == 1) and np.all(np.diff(table.size) >= 0)


@pytest.mark.parametrize("family", tables.FAMILIES)
@pytest.mark.parametrize("index", range(0, 64, 7))
def test_expected_bits_come_within_a_thousandth_of_the_entropy(family, index):
    scale = tables.SCALES[index]
    reach = int(40 * scale) + 8
    mass = masses(family, scale, reach)
    entropy = -np.sum(special.xlogy(mass, mass)) / np.log(2)
    expected = mass @ tables.ideal_bits(tables.scale_tables(family), np.arange(-reach, reach + 1), index)
    # 10**-4 bits beside it for the scales at which almost nothing is coded but zeros: a count is 2**-16.
    assert entropy - 1e-6 <= expected <= 1.001 * entropy + 1e-4


@pytest.mark.parametrize("family", tables.FAMILIES)
def test_escapes_are_rare(family):
    """At most where half a count begins: a share of 2**-7 of the symbols, and of 2**-14 up to a scale of 3."""
    table = tables.scale_tables(family)
    for index, scale in enumerate(tables.SCALES):
        reach = int(table.size[index]) // 2
        outside = 2 * float(CDFS[family](np.array(-(reach + 0.5) / scale)))
        assert outside < (2**-14 if scale < 3 else 2**-7)


@quick
@given(
    first=st.integers(-1000, 1000),
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    share=st.floats(0, 1),
)
def test_tables_from_any_masses(first, weights, share):
    weights = np.array(weights) + 1e-12
    mass = share * weights / weights.sum()
    table = tables.tables_from_masses([(first, mass), (0, [1.0])])
    assert_tables(table)
    likeliest = first + int(np.argmax(mass))
    assert table.first[0] <= likeliest < table.first[0] + table.size[0]
    assert table.first[0] >= first and table.first[0] + table.size[0] <= first + weights.size


def test_counts_follow_masses():
    table = tables.tables_from_masses([(5, [0.25, 0.5, 0.125])])
    np.testing.assert_allclose(table.counts(0), [16384, 32768, 8192, 8192], atol=1)
    bits = tables.ideal_bits(table, [5, 6, 7], 0)
    np.testing.assert_allclose(bits, [2, 1, 3], atol=1e-3)


def test_a_flat_distribution_wider_than_the_line():
    """Bins too rare for a count leave to an escape whose order suits them, so even this costs little too much."""
    width = 1 << 18
    table = tables.tables_from_masses([(-width // 2, np.full(width, 1 / width))])
    assert_tables(table)
    assert table.size[0] <= tables.MAX_SIZE
    symbols = np.random.default_rng(0).integers(-width // 2, width // 2, 1000)
    assert tables.ideal_bits(table, symbols, 0).mean() < 18 + 3


@pytest.mark.parametrize("order", [0, 1, 5, 31])
def test_exp_golomb_bits(order):
    """Values 0..2**order - 1 cost order + 1 bits; each doubling beyond costs two more; no value costs over 65 bits."""
    step = 1 << order
    values = np.array([0, step - 1, step, 3 * step - 1, 3 * step])
    assert tables.exp_golomb_bits(values, order).tolist()[:4] == ([order + 1] * 2 + [order + 3 - (order == 31)] * 2)
    assert tables.exp_golomb_bits(2**32 - 1, order) <= 65


def test_ideal_bits_broadcast():
    table = tables.scale_tables("gaussian")
    bits = tables.ideal_bits(table, np.zeros((2, 3, 64), np.int32), np.arange(64))
    assert bits.shape == (2, 3, 64) and bits.dtype == np.float64
    assert np.all(np.diff(bits[0, 0]) > 0)
    assert np.all(tables.ideal_bits(table, [-(2**31), 2**31 - 1], 0) < 16 + 1 + 65)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "at least one"),
        ([(0, [])], "non-empty"),
        ([(0, [0.5, -0.1])], ">= 0"),
        ([(0, [np.nan])], "finite"),
        ([(0, [0.9, 0.9])], "at most 1"),
        ([(0, [[0.5]])], "one dimension"),
        ([(2**31 - 1, [0.5, 0.5])], "int32"),
        ([(-(2**31) - 1, [0.5, 0.5])], "int32"),
    ],
)
def test_masses_refused(rows, says):
    with pytest.raises(ValueError, match=says):
        tables.tables_from_masses(rows)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first": [0.0]}, "integers"),
        ({"first": [0, 1]}, "same length"),
        ({"first": [2**31 - 1]}, "int32"),
        ({"size": [-1]}, "size"),
        ({"size": [1]}, "size \\+ 2"),
        ({"size": [20_000]}, "size"),
        ({"order": [32]}, "order"),
        ({"cdf": [0, 9, 9, 65536]}, "strictly"),
        ({"cdf": [1, 9, 10, 65536]}, "strictly"),
        ({"cdf": [0, 9, 10, 65535]}, "strictly"),
    ],
)
def test_stored_arrays_are_checked(change, says):
    arrays = {"first": [0], "size": [2], "order": [0], "cdf": [0, 9, 10, 65536]}
    assert_tables(tables.Tables(**arrays))
    with pytest.raises(ValueError, match=says):
        tables.Tables(**{**arrays, **change})


def test_stored_arrays_make_the_same_tables():
    table = tables.scale_tables("laplace")
    again = tables.Tables(table.first.copy(), table.size.astype(np.int64), table.order, table.cdf)
    assert again.checksum == table.checksum
    for array, other in zip(again.lookup, table.lookup, strict=True):
        np.testing.assert_array_equal(array, other)


def test_unknown_family():
    with pytest.raises(ValueError, match="gaussian, logistic, laplace"):
        tables.scale_tables("cauchy")

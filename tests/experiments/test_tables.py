"""Tables and effects in words."""

import math

import pytest
from effects import Effect
from tables import interval, markdown, told


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [(1.234, -0.5, 3, "+1.23 [-0.50, +3.00]"), (-2, math.nan, math.nan, "-2.00"), (math.nan,) * 3 + ("unknown",)],
)
def test_intervals_are_told_as_far_as_they_are_known(value, low, high, words):
    assert interval(Effect(value, low, high, 0.1, 0.0, math.nan, 1, 2, 0)) == words


@pytest.mark.parametrize(
    ("photos", "seeds", "words"),
    [(1, 1, "Budget: small; 1 photo, 1 seed."), (12, 3, "Budget: small; 12 photos, 3 seeds.")],
)
def test_what_a_table_is_of(photos, seeds, words):
    assert told("small", photos, seeds) == words


def test_columns_are_aligned():
    assert markdown(["a", "long"], [[1, "x"], ["wide", 2]]) == (
        "| a    | long |\n|------|------|\n| 1    | x    |\n| wide | 2    |"
    )

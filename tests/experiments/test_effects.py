"""Effects: known ones are found, their intervals cover, tests agree with those computed by hand."""

import math

import numpy as np
import pytest
from effects import Effect, Runs, best_at, effect, holm, rate_differences, signed_ranks, verdict
from scipy import stats

QUALITIES = np.array([0.2, 0.4, 0.8, 1.6])


def made(factors: np.ndarray, psnr: float = 30.0) -> Runs:
    """Curves whose rates are factors (S, P) times the same ones."""
    bpp = factors[..., None] * QUALITIES
    return Runs(bpp, np.broadcast_to(psnr + 4 * np.log2(QUALITIES), bpp.shape).copy())




def test_a_constant_saving_is_found_exactly():
    found = effect(made(np.ones((3, 5))), made(np.full((3, 5), 0.9)), resamples=50)
    assert found.value == pytest.approx(-10) and found.low == pytest.approx(-10) and found.high == pytest.approx(-10)
    assert found.of_means == pytest.approx(-10)
    assert found.size == -1 and found.p == stats.wilcoxon(np.full(5, -10.0)).pvalue
    assert (found.seeds, found.photos, found.left_out) == (3, 5, 0)


def test_nothing_is_found_where_there_is_nothing():
    anchor = made(np.ones((2, 4)))
    found = effect(anchor, anchor, resamples=20)
    assert (found.value, found.low, found.high, found.p, found.size) == (0, 0, 0, 1, 0)


def test_pairs_are_of_one_seed_and_photo():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.5, 2, (3, 6))
    saved = np.array([[1.1], [1.0], [0.9]])
    differences = rate_differences(made(hard), made(hard * saved))
    np.testing.assert_allclose(differences, np.broadcast_to([[10], [0], [-10]], (3, 6)), atol=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(60):
        factors = np.exp(-0.05 + rng.normal(0, 0.02, (8, 1)) + rng.normal(0, 0.03, (1, 24)))
        found = effect(made(np.ones((8, 24))), made(factors), resamples=100)
        # The mean of many: exp of a normal's mean plus half its variance.
        covered += found.low <= 100 * math.expm1(-0.05 + (0.02**2 + 0.03**2) / 2) <= found.high
    assert 48 <= covered <= 60


def test_photos_whose_curves_do_not_meet_are_left_out():
    anchor, other = made(np.ones((1, 3))), made(np.full((1, 3), 0.8))
    other.psnr[0, 1] += 100
    found = effect(anchor, other, resamples=50)
    assert found.value == pytest.approx(-20) and found.left_out == 1
    lost = effect(anchor, Runs(other.bpp, anchor.psnr + 100), resamples=50)
    assert math.isnan(lost.value) and math.isnan(lost.low) and math.isnan(lost.p) and lost.left_out == 3


def test_other_photos_are_refused():
    with pytest.raises(ValueError, match="not the same seeds and photos"):
        effect(made(np.ones((2, 3))), made(np.ones((2, 4))))


def test_one_photo_has_no_test():
    assert all(map(math.isnan, signed_ranks(np.array([1.0]))))


def test_rank_biserial_by_hand():
    # Ranks 1, 2, 3, 4: of the negative ones 2, so (1 + 3 + 4 - 2) / 10.
    assert signed_ranks(np.array([1.0, -2.0, 3.0, 4.0, 0.0]))[1] == pytest.approx(0.6)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_nan = holm([0.5, math.nan, 0.6])
    assert with_nan[0] == 1 and math.isnan(with_nan[1]) and with_nan[2] == 1
    assert holm([]) == []


@pytest.mark.parametrize(
    ("low", "high", "sign", "says"),
    [(1, 2, 1, "supported"), (1, 2, -1, "not supported"), (-2, -1, -1, "supported"), (-1, 1, 1, "undecided")],
)
def test_verdict(low, high, sign, says):
    assert verdict(Effect(0, low, high, 0, 0, 0, 1, 1, 0), sign) == says


def test_an_interval_that_is_not_known_decides_nothing():
    assert verdict(Effect(1, math.nan, math.nan, 0, 0, 0, 1, 1, 0), 1) == "undecided"


def test_the_best_at_a_rate_changes_where_curves_cross():
    flat = made(np.ones((2, 6)))
    steep = Runs(flat.bpp, 30 + 6 * np.log2(np.broadcast_to(QUALITIES, flat.bpp.shape)) + 4)
    found = best_at({"flat": flat, "steep": steep}, np.array([0.05, 0.25, 1.0]), reference="flat", resamples=30)
    # They meet where 4 x = 6 x + 4, two octaves below 1: at 0.25.
    assert np.isnan(found["flat"].share[0]) and np.isnan(found["steep"].difference[0])
    assert found["steep"].share[2] == 1 and found["flat"].share[2] == 0
    np.testing.assert_allclose(found["steep"].difference[1:], [0, 4], atol=1e-6)
    np.testing.assert_allclose(found["flat"].difference[1:], 0)
    assert found["steep"].low[2] <= 4 + 1e-6 <= found["steep"].high[2] + 2e-6


def test_a_curve_does_not_win_where_the_other_ends():
    seeds = np.linspace(0.8, 1.2, 5)[None]
    short, long = made(seeds), made(2 * seeds)
    found = best_at({"short": short, "long": long}, np.array([1.0, 1.55, 2.0]), reference="short", resamples=200)
    assert found["short"].share[0] == found["short"].share[1] == 1 and found["long"].share[1] == 0
    assert np.isnan(found["long"].share[2]), "the other does not reach it"

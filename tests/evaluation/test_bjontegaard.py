"""Differences between curves: those one can compute by hand, those others compute, and what the photos do to them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nlvc.evaluation import metrics
from nlvc.evaluation.bjontegaard import bd_psnr, bd_rate, paired_bd_rate

RATES, DECIBELS = np.array([0.1, 0.25, 0.5, 1.0, 2.0]), np.array([27.0, 30.0, 32.5, 36.0, 40.0])
PUBLISHED = json.loads((Path(__file__).parents[2] / "experiments/published/kodak.json").read_text(encoding="utf-8"))


def published(name):
    return np.array(PUBLISHED[name]["bpp"]), np.array(PUBLISHED[name]["psnr"])


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25])
def test_a_curve_that_needs_so_much_of_the_rate(factor):
    assert bd_rate(RATES, DECIBELS, factor * RATES, DECIBELS) == pytest.approx(100 * (factor - 1))
    assert bd_rate(RATES[::-1], DECIBELS[::-1], factor * RATES, DECIBELS) == pytest.approx(100 * (factor - 1))


@pytest.mark.parametrize("decibels", [-1.5, 0.3])
def test_a_curve_that_is_so_much_better(decibels):
    assert bd_psnr(RATES, DECIBELS, RATES, DECIBELS + decibels) == pytest.approx(decibels)
    assert bd_psnr(RATES, DECIBELS, RATES[::-1], DECIBELS[::-1] + decibels) == pytest.approx(decibels)


def test_straight_lines_by_hand():
    """6 dB against 5 dB for a doubling of the rate, from one common point at 1 bpp and 30 dB."""
    steep = 2 ** (np.arange(0, 7) / 6), np.arange(30.0, 37)
    flat = 2 ** (np.array([0, 1, 7]) / 5), np.array([30.0, 31, 37])
    # At q dB the flat one needs (q - 30) (1/5 - 1/6) more octaves: 0.1 in the mean over the common 30 to 36 dB.
    assert bd_rate(*steep, *flat) == pytest.approx(100 * (2**0.1 - 1))
    # At n octaves it is n dB worse: half a decibel in the mean over the common one octave.
    assert bd_psnr(*steep, *flat) == pytest.approx(-0.5)


def test_only_the_common_range_counts():
    more = np.append(RATES, 50.0), np.append(DECIBELS, 45.0)
    # PCHIP's slopes at the end of the shorter curve differ a little.
    assert bd_rate(RATES, DECIBELS, *more) == pytest.approx(0, abs=2)
    assert bd_psnr(RATES, DECIBELS, *more) == pytest.approx(0, abs=0.1)


def test_points_that_another_one_makes_useless_do_not_count():
    dearer = np.append(RATES, 0.6), np.append(DECIBELS, 32.5)
    assert bd_rate(RATES, DECIBELS, *dearer) == pytest.approx(0)
    worse = np.append(RATES, 0.5), np.append(DECIBELS, 31.0)
    assert bd_psnr(RATES, DECIBELS, *worse) == pytest.approx(0)


def test_curves_that_barely_meet_are_refused():
    with pytest.raises(ValueError, match=r"bd_rate: the curves share 0\.50 dB; at least 1 is needed"):
        bd_rate(RATES, DECIBELS, RATES, DECIBELS + 12.5)
    with pytest.raises(ValueError, match=r"share 0\.00 dB"):
        bd_rate(RATES, DECIBELS, RATES, DECIBELS + 20)
    with pytest.raises(ValueError, match=r"bd_psnr: the curves share rates up to 1\.11 times the lowest; .* 1\.2"):
        bd_psnr(RATES, DECIBELS, 18 * RATES, DECIBELS)
    with pytest.raises(ValueError, match="share no rates"):
        bd_psnr(RATES, DECIBELS, 30 * RATES, DECIBELS)


@pytest.mark.parametrize("measure", [bd_rate, bd_psnr])
def test_what_is_no_curve_is_refused(measure):
    for rates, decibels in ((RATES[:1], DECIBELS[:1]), (RATES, DECIBELS[:-1]), (RATES[None], DECIBELS[None])):
        with pytest.raises(ValueError, match="two points or more"):
            measure(RATES, DECIBELS, rates, decibels)
    lossless, free = np.append(DECIBELS[:-1], math.inf), np.append(RATES[:-1], 0)
    for rates, decibels in ((RATES, lossless), (free, DECIBELS)):
        with pytest.raises(ValueError, match="positive rates and finite PSNR"):
            measure(RATES, DECIBELS, rates, decibels)


def test_metrics_has_them_too():
    assert metrics.bd_rate is bd_rate and metrics.bd_psnr is bd_psnr and metrics.paired_bd_rate is paired_bd_rate


# Published curves


def test_published_curves_are_curves():
    assert len(PUBLISHED) > 20
    for name, curve in PUBLISHED.items():
        assert curve["source"].startswith("github.com/"), name
        for values in (curve["bpp"], curve["psnr"], curve.get("ms_ssim", [0, 1])):
            assert all(a < b for a, b in zip(values, values[1:], strict=False)), name
        assert len(curve["bpp"]) == len(curve["psnr"]) == len(curve.get("ms_ssim", curve["bpp"])), name
        assert 0 < curve["bpp"][0] < curve["bpp"][-1] < 5 and 20 < curve["psnr"][0] < curve["psnr"][-1] < 50, name


@pytest.mark.parametrize(
    ("name", "expected"),
    # Off the axis of the plot of these methods in microsoft/DCVC, assets/intra_compare.png, which has VTM as its zero.
    [("elic2022", -7.0), ("tcm-large", -11.7)],
)
def test_published_differences_come_out(name, expected):
    assert bd_rate(*published("vtm"), *published(name)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("anchor", ["vtm", "bpg-444", "jpeg"])
@pytest.mark.parametrize("name", ["elic2022", "bmshj2018-hyperprior", "jpeg2000-openjpeg", "cool-chic-5.0"])
def test_another_implementation_agrees(anchor, name):
    bjontegaard = pytest.importorskip("bjontegaard")
    curves = *published(anchor), *published(name)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    assert bd_rate(*curves) == pytest.approx(bjontegaard.bd_rate(*curves, **options), abs=0.001)
    assert bd_psnr(*curves) == pytest.approx(bjontegaard.bd_psnr(*curves, **options), abs=0.001)


# Over photos


def photos(count, seed=0):
    """Curves of very different photos: bpp and PSNR (count, 5)."""
    rng = np.random.default_rng(seed)
    return RATES * rng.lognormal(0, 1, (count, 1)), DECIBELS + rng.normal(0, 2, (count, 1))


def test_what_all_photos_save_has_no_spread_however_much_they_differ():
    bpp, psnr = photos(24)
    found = paired_bd_rate(bpp, psnr, 0.9 * bpp, psnr, resamples=50)
    np.testing.assert_allclose(found.each, -10)
    for estimate in (found.of_means, found.mean):
        np.testing.assert_allclose(estimate, (-10, -10, -10))
    assert found.apart == 0


def test_two_photos_by_hand():
    bpp, psnr = photos(2)
    found = paired_bd_rate(bpp, psnr, np.array([[0.9], [0.7]]) * bpp, psnr, resamples=400)
    np.testing.assert_allclose(found.each, [-10, -30])
    # Drawn twice with replacement: -10, -20 twice as often, -30.
    np.testing.assert_allclose(found.mean, (-20, -30, -10))
    np.testing.assert_allclose(found.of_means[1:], (-30, -10))
    weighted = bd_rate(bpp.mean(0), psnr.mean(0), (np.array([[0.9], [0.7]]) * bpp).mean(0), psnr.mean(0))
    assert found.of_means.value == pytest.approx(weighted)


def test_the_interval_is_that_of_a_mean():
    bpp, psnr = photos(24)
    saved = 1 + np.random.default_rng(1).normal(0, 0.1, (24, 1))
    found = paired_bd_rate(bpp, psnr, saved * bpp, psnr, resamples=500)
    error = 100 * saved.std() / 24**0.5
    assert found.mean.value == pytest.approx(100 * (saved.mean() - 1))
    assert found.mean.high - found.mean.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found.of_means.low < found.of_means.value < found.of_means.high


def test_a_seed_always_draws_the_same_photos():
    bpp, psnr = photos(6)
    other = bpp * np.linspace(0.8, 1.1, 6)[:, None], psnr
    first, again, another = (paired_bd_rate(bpp, psnr, *other, resamples=50, seed=seed) for seed in (3, 3, 4))
    assert first.of_means == again.of_means and first.mean == again.mean
    assert first.of_means != another.of_means


def test_photos_whose_curves_barely_overlap_are_counted():
    bpp, psnr = photos(4)
    moved = psnr.copy()
    moved[1] += 12.5
    found = paired_bd_rate(bpp, psnr, bpp, moved, resamples=20)
    assert found.apart == 1 and math.isnan(found.each[1])
    np.testing.assert_allclose(found.each[[0, 2, 3]], 0, atol=1e-9)
    np.testing.assert_allclose(found.mean, 0, atol=1e-9)
    assert found.of_means.value < 0  # the mean curve knows all photos


def test_no_photo_can_be_compared_though_the_means_can():
    bpp, psnr = np.stack([RATES, RATES]), np.stack([DECIBELS, DECIBELS + 30])
    found = paired_bd_rate(bpp, psnr, bpp, psnr[::-1], resamples=20)
    assert found.apart == 2 and np.isnan(found.mean).all()
    assert found.of_means.value == pytest.approx(0) and math.isnan(found.of_means.low)


def test_one_photo_has_no_interval():
    bpp, psnr = photos(1)
    found = paired_bd_rate(bpp, psnr, 0.9 * bpp, psnr, resamples=20)
    for estimate in (found.of_means, found.mean):
        assert estimate.value == pytest.approx(-10) and math.isnan(estimate.low) and math.isnan(estimate.high)


def test_curves_of_different_photos_are_refused():
    bpp, psnr = photos(3)
    for other in ((bpp[:2], psnr[:2]), (bpp[0], psnr[0])):
        with pytest.raises(ValueError, match="of the same photos, got shapes"):
            paired_bd_rate(bpp, psnr, *other)
    with pytest.raises(ValueError, match=r"share 0\.00 dB"):
        paired_bd_rate(bpp, psnr, bpp, psnr + 40)
    with pytest.raises(ValueError, match="finite PSNR"):
        paired_bd_rate(bpp, psnr, bpp, np.where(psnr == psnr.max(), math.inf, psnr))

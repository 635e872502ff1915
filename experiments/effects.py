"""How large a difference between two kinds of models is, and how certain, given a few seeds and some dozen photos.

Every comparison is paired: the same photo, the same seed. Intervals are by a bootstrap that draws seeds and photos with
replacement, both at once. With three seeds the share of chance that training has is known only roughly, so intervals
are rather too narrow than too wide.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.interpolate import PchipInterpolator

from nlvc.evaluation import bd_rate


class Runs(NamedTuple):
    """One kind of model: bpp and psnr (dB), float64 (S seeds, P photos, Q qualities)."""

    bpp: np.ndarray
    psnr: np.ndarray


class Effect(NamedTuple):
    """How one kind of model differs from another.

    Attributes:
      value, low, high: mean BD-rate over seeds and photos in per cent, negative where it needs less, and its 95 %
        interval.
      p: of Wilcoxon's signed-rank test over photos, each the mean over its seeds; nan where there is one photo.
      size: matched-pairs rank-biserial correlation: -1 where every photo needs less, 1 where every photo needs more.
      of_means: BD-rate of the curves that are means over seeds and photos, as the field reports it.
      seeds, photos: how many there were.
      left_out: pairs of curves that share too little.
    """

    value: float
    low: float
    high: float
    p: float
    size: float
    of_means: float
    seeds: int
    photos: int
    left_out: int


class AtRates(NamedTuple):
    """One kind of model at R rates, (R,) each; nan where a curve does not reach a rate.

    Attributes:
      share: of the draws of seeds and photos in which all curves reach the rate that do so in the mean, that it is the
        best in.
      difference, low, high: of its PSNR to the reference's at the same rate, dB, with the 95 % interval.
    """

    share: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray


def rate_differences(anchor: Runs, other: Runs) -> np.ndarray:
    """BD-rate of each seed and photo, per cent, (S, P); nan where the curves share too little."""
    if anchor.bpp.shape[:2] != other.bpp.shape[:2]:
        raise ValueError(f"not the same seeds and photos: {anchor.bpp.shape[:2]} and {other.bpp.shape[:2]}")
    seeds, photos = anchor.bpp.shape[:2]
    return np.array([[_bd_rate(anchor, other, (seed, photo)) for photo in range(photos)] for seed in range(seeds)])


def effect(anchor: Runs, other: Runs, *, resamples: int = 2000, seed: int = 0) -> Effect:
    """What `other` needs against `anchor`. Raises ValueError if they are not of the same seeds and photos."""
    differences = rate_differences(anchor, other)
    seeds, photos = differences.shape
    known = differences[~np.isnan(differences)]
    means = [_mean(differences[np.ix_(*at)]) for at in _draws(seeds, photos, resamples, seed)]
    low, high = np.nanpercentile(means, [2.5, 97.5]) if len(known) > 1 else (math.nan, math.nan)
    of_photos = differences[:, ~np.isnan(differences).any(axis=0)].mean(axis=0)
    try:
        of_means = bd_rate(*(values.mean(axis=(0, 1)) for values in (*anchor, *other)))
    except ValueError:
        of_means = math.nan
    left_out = differences.size - len(known)
    return Effect(
        _mean(differences), float(low), float(high), *signed_ranks(of_photos), of_means, seeds, photos, left_out
    )


def signed_ranks(differences: np.ndarray) -> tuple[float, float]:
    """(p, rank-biserial correlation) of Wilcoxon's signed-rank test of (P,) differences; nan for fewer than two."""
    if len(differences) < 2:
        return math.nan, math.nan
    others = differences[differences != 0]
    if not len(others):
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(others))
    return float(stats.wilcoxon(others).pvalue), float(np.sum(np.sign(others) * ranks) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p values, corrected for being many (Holm 1979); nan stays nan, and does not count."""
    adjusted, largest = [math.nan] * len(p_values), 0.0
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted


def verdict(found: Effect, sign: int) -> str:
    """What an effect says of the claim that it has a sign: by its interval."""
    low, high = sorted((sign * found.low, sign * found.high))
    return "supported" if low > 0 else "not supported" if high < 0 else "undecided"


def best_at(
    found: Mapping[str, Runs], bpp: np.ndarray, *, reference: str, resamples: int = 1000, seed: int = 0
) -> dict[str, AtRates]:
    """Which kind of model is the best at each rate, by the mean curves of drawn seeds and photos.

    Args:
      found: kinds of models on the same seeds and photos.
      bpp: (R,) rates.
      reference: the name that PSNR is compared with.
    """
    names, seeds_photos = list(found), next(iter(found.values())).bpp.shape[:2]
    everything = tuple(np.arange(count) for count in seeds_photos)
    drawn = np.array([
        [_at_rates(its, at, bpp) for its in found.values()] for at in _draws(*seeds_photos, resamples, seed)
    ])  # (draws, kinds, R)
    whole = np.array([_at_rates(its, everything, bpp) for its in found.values()])
    # A curve that ends before the others must not win the draws in which theirs end before it.
    reach = ~np.isnan(whole)
    compared = (~np.isnan(drawn) | ~reach).all(axis=1)
    wins = np.argmax(np.where(reach, drawn, -np.inf), axis=1)
    anchor = names.index(reference)
    results = {}
    for index, name in enumerate(names):
        reached = reach[index] & reach[anchor]
        differences = np.where(reached, drawn[:, index] - drawn[:, anchor], 0.0)
        low, high = np.where(reached, np.nanpercentile(differences, [2.5, 97.5], axis=0), math.nan)
        won = ((wins == index) & compared).sum(axis=0) / np.maximum(compared.sum(axis=0), 1)
        share = np.where(reached & compared.any(axis=0), won, math.nan)
        results[name] = AtRates(share, whole[index] - whole[anchor], low, high)
    return results


def _mean(values: np.ndarray) -> float:
    """Of those that are known; nan if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _draws(seeds: int, photos: int, count: int, seed: int):
    """`count` pairs of indices, of seeds and of photos, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(seeds, size=seeds), rng.integers(photos, size=photos)


def _at_rates(its: Runs, at: tuple, bpp: np.ndarray) -> np.ndarray:
    """PSNR of a mean curve at rates, (R,)."""
    rates, psnr = (values[np.ix_(*at)].mean(axis=(0, 1)) for values in its)
    order = np.argsort(rates)
    return PchipInterpolator(np.log(rates[order]), psnr[order], extrapolate=False)(np.log(bpp))


def _bd_rate(anchor: Runs, other: Runs, at: tuple[int, int]) -> float:
    try:
        return bd_rate(anchor.bpp[at], anchor.psnr[at], other.bpp[at], other.psnr[at])
    except ValueError:
        return math.nan

"""Bjontegaard's mean differences between two rate-distortion curves, with how much they depend on the photos.

A curve is PCHIP through its points over the logarithm of the rate (Bjontegaard 2001, with the field's usual monotone
interpolation in place of his cubic), and only the range that both curves have counts. PSNR may be replaced by any
other quality in dB.
"""

import math
from typing import NamedTuple

import numpy as np

LEAST_DECIBELS = 1.0
LEAST_RATIO = 1.2
"""What two curves must share: of PSNR, and of rates as highest / lowest. Less says nothing of the codecs."""


class _BarelyOverlap(ValueError):
    """Two curves with too little in common to be compared."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class PairedRates(NamedTuple):
    """What `paired_bd_rate` finds, in per cent, negative where the second codec needs less.

    Attributes:
      of_means: BD-rate of the curves that are means over photos, setting by setting, as the field reports it.
      mean: mean of the photos' own BD-rates, over those that have one; nan if none has.
      each: float64 (photos,), the photos' own BD-rates; nan where the two curves of a photo barely overlap.
      apart: how many photos are nan in `each`.
    """

    of_means: Estimate
    mean: Estimate
    each: np.ndarray
    apart: int


def bd_rate(anchor_bpp, anchor_psnr, bpp, psnr) -> float:
    """Mean difference of rate at equal PSNR, in per cent: negative where the second curve needs less.

    Args:
      anchor_bpp, anchor_psnr, bpp, psnr: the points of two curves, in any order; bpp positive, PSNR in dB and finite.
        Of points of equal PSNR the cheapest counts.

    Raises:
      ValueError: the curves share less than LEAST_DECIBELS, or a curve has less than two points or impossible ones.
    """
    return _bd_rate(anchor_bpp, anchor_psnr, bpp, psnr, LEAST_DECIBELS)


def bd_psnr(anchor_bpp, anchor_psnr, bpp, psnr) -> float:
    """Mean difference of PSNR at equal rate, in dB: positive where the second curve is better.

    Args:
      anchor_bpp, anchor_psnr, bpp, psnr: as of `bd_rate`. Of points of equal rate the best counts.

    Raises:
      ValueError: the rates that the curves share span less than LEAST_RATIO, or a curve has less than two points or
        impossible ones.
    """
    (anchor_rates, anchor_psnr), (rates, psnr) = _curve(anchor_bpp, anchor_psnr), _curve(bpp, psnr)
    low, high = _shared(anchor_rates, rates)
    if high - low < math.log(LEAST_RATIO):
        span = f"rates up to {math.exp(high - low):.2f} times the lowest" if high >= low else "no rates"
        raise _BarelyOverlap(f"bd_psnr: the curves share {span}; at least {LEAST_RATIO:g} times is needed")
    # As costs, so that the best of equal rates is the lowest.
    return -_mean_difference(anchor_rates, -anchor_psnr, rates, -psnr, low, high)


def paired_bd_rate(
    anchor_bpp: np.ndarray,
    anchor_psnr: np.ndarray,
    bpp: np.ndarray,
    psnr: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedRates:
    """BD-rate of two codecs on the same photos, with paired bootstrap intervals over the photos.

    Photos are drawn with replacement, the same ones for both codecs, and the interval is from the 2.5th to the 97.5th
    percentile. `of_means` and `mean` differ where photos do: the first asks for the rate of the whole set when all
    photos have one setting, the second counts every photo alike. Few photos make intervals too narrow; a single
    one makes them nan, and so do curves that share nothing in some of the draws.

    Args:
      anchor_bpp, anchor_psnr: (photos, points) of the first codec, at the same settings for all photos.
      bpp, psnr: (photos, other points) of the second codec, for the same photos in the same order.
      resamples: how many sets of photos are drawn.
      seed: the same seed draws the same sets.

    Raises:
      ValueError: the mean curves share less than LEAST_DECIBELS; arrays of other shapes; impossible points.
    """
    arrays = [np.asarray(values, float) for values in (anchor_bpp, anchor_psnr, bpp, psnr)]
    shapes = [values.shape for values in arrays]
    if any(values.ndim != 2 or len(values) != len(arrays[0]) for values in arrays) or not len(arrays[0]):
        raise ValueError(f"paired_bd_rate: needs (photos, points) of the same photos, got shapes {shapes}")
    count = len(arrays[0])
    of_means = bd_rate(*(values.mean(axis=0) for values in arrays))
    each = np.array([_or_nan(*curves, least=LEAST_DECIBELS) for curves in zip(*arrays, strict=True)])
    known = each[~np.isnan(each)]

    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    drawn = zip(*(weights @ values for values in arrays), strict=True)
    # The whole set has enough in common; a draw may have a little less.
    of_drawn = [_or_nan(*curves, least=0) for curves in drawn]
    means = rng.choice(known, (resamples, len(known))).mean(axis=1) if len(known) else np.array([])
    return PairedRates(
        _estimate(of_means, of_drawn, count),
        _estimate(known.mean() if len(known) else math.nan, means, len(known)),
        each,
        count - len(known),
    )


def _estimate(value: float, drawn, photos: int) -> Estimate:
    low, high = np.percentile(drawn, [2.5, 97.5]) if photos > 1 else (math.nan, math.nan)
    return Estimate(float(value), float(low), float(high))


def _or_nan(anchor_bpp, anchor_psnr, bpp, psnr, least: float) -> float:
    """BD-rate; nan if the curves barely overlap."""
    try:
        return _bd_rate(anchor_bpp, anchor_psnr, bpp, psnr, least)
    except _BarelyOverlap:
        return math.nan


def _curve(bpp, psnr) -> tuple[np.ndarray, np.ndarray]:
    """(logarithms of the rates, PSNR), float64 (points,)."""
    bpp, psnr = np.asarray(bpp, float), np.asarray(psnr, float)
    if bpp.ndim != 1 or bpp.shape != psnr.shape or len(bpp) < 2:
        raise ValueError(f"a curve needs two points or more, each of a rate and a PSNR; got {bpp.shape}, {psnr.shape}")
    if not (np.all(bpp > 0) and np.all(np.isfinite(bpp)) and np.all(np.isfinite(psnr))):
        raise ValueError("a curve needs positive rates and finite PSNR; leave out lossless points")
    return np.log(bpp), psnr


def _shared(x: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    return max(x.min(), other.min()), min(x.max(), other.max())


def _bd_rate(anchor_bpp, anchor_psnr, bpp, psnr, least: float) -> float:
    (anchor_rates, anchor_psnr), (rates, psnr) = _curve(anchor_bpp, anchor_psnr), _curve(bpp, psnr)
    low, high = _shared(anchor_psnr, psnr)
    if high - low < least or high <= low:
        raise _BarelyOverlap(f"bd_rate: the curves share {max(high - low, 0):.2f} dB; at least {least:g} is needed")
    return 100 * math.expm1(_mean_difference(anchor_psnr, anchor_rates, psnr, rates, low, high))


def _mean_difference(anchor_x, anchor_cost, x, cost, low: float, high: float) -> float:
    """Mean over low..high of cost(x) - anchor_cost(x). Of points of equal x the lowest cost counts."""
    from scipy.interpolate import PchipInterpolator

    areas = []
    for at, values in ((anchor_x, anchor_cost), (x, cost)):
        order = np.lexsort((values, at))
        at, first = np.unique(at[order], return_index=True)
        areas.append(PchipInterpolator(at, values[order][first]).integrate(low, high))
    return float(areas[1] - areas[0]) / (high - low)

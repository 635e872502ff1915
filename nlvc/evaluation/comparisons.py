"""From points to what a reader wants to know: the curves of each set, and how much less a model needs than others."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nlvc.evaluation.bjontegaard import Estimate, bd_rate, paired_bd_rate
from nlvc.evaluation.points import Curve, Curves, Point, mean_curves, photo_curves
from nlvc.evaluation.published import Published


class SetResults(NamedTuple):
    """What was found on one set.

    Attributes:
      name: of the set; photos: how many it has.
      models, rivals: names of the codecs that have curves.
      curves, means: by codec, photo by photo and their means.
      published: curves of others over the same photos.
      lacking: a line for each codec without a curve, or whose curve lacks photos.
    """

    name: str
    photos: int
    models: tuple[str, ...]
    rivals: tuple[str, ...]
    curves: Mapping[str, Curves]
    means: Mapping[str, Curve]
    published: Mapping[str, Published]
    lacking: tuple[str, ...]


class Comparison(NamedTuple):
    """BD-rate of a model against an anchor in per cent, negative where the model needs less.

    Attributes:
      model, anchor: names; published: whether the anchor is a published curve, which has no photos of its own.
      photos: how many photos both have.
      of_means: of the two mean curves; a published one's has no interval (nan). None: see `why`.
      mean: mean over the photos of their own BD-rates; None against a published curve.
      apart: photos whose two curves barely overlap, which `mean` leaves out.
      why: one line that says why there is no figure.
    """

    model: str
    anchor: str
    published: bool
    photos: int
    of_means: Estimate | None
    mean: Estimate | None
    apart: int = 0
    why: str = ""


def set_results(
    name: str,
    photos: int,
    models: Sequence[str],
    rivals: Sequence[str],
    points: Sequence[Point],
    published: Mapping[str, Published],
) -> SetResults:
    """The curves of one set: `points` are of all codecs on it and of no other set."""
    curves, means, lacking = {}, {}, []
    for codec in (*models, *rivals):
        its = [point for point in points if point.codec == codec]
        try:
            if not its:
                raise ValueError(f"{codec} has coded no photo of {name}")
            (curves[codec],), (means[codec],) = photo_curves(its).values(), mean_curves(its).values()
        except ValueError as error:
            lacking.append(str(error))
            continue
        if missing := photos - len(curves[codec].photos):
            lacking.append(f"the curve of {codec} on {name} lacks {missing} of {photos} photos")
    models, rivals = (tuple(codec for codec in names if codec in curves) for names in (models, rivals))
    return SetResults(name, photos, models, rivals, curves, means, published, tuple(lacking))


def compare(found: SetResults) -> list[Comparison]:
    """Each model against the other models, every rival, and every published curve."""
    return [
        comparison
        for model in found.models
        for comparison in [
            *(_measured(found, model, anchor) for anchor in (*found.models, *found.rivals) if anchor != model),
            *(_published(found, model, anchor) for anchor in found.published),
        ]
    ]


def _measured(found: SetResults, model: str, anchor: str) -> Comparison:
    ours, theirs = found.curves[model], found.curves[anchor]
    common = [photo for photo in ours.photos if photo in set(theirs.photos)]
    rows = [[curves.photos.index(photo) for photo in common] for curves in (theirs, ours)]
    try:
        paired = paired_bd_rate(theirs.bpp[rows[0]], theirs.psnr[rows[0]], ours.bpp[rows[1]], ours.psnr[rows[1]])
    except ValueError as error:
        return Comparison(model, anchor, False, len(common), None, None, why=str(error))
    return Comparison(model, anchor, False, len(common), paired.of_means, paired.mean, paired.apart)


def _published(found: SetResults, model: str, anchor: str) -> Comparison:
    ours, theirs = found.means[model], found.published[anchor]
    try:
        value = bd_rate(theirs.bpp, theirs.psnr, ours.bpp, ours.psnr)
    except ValueError as error:
        return Comparison(model, anchor, True, len(ours.photos), None, None, why=str(error))
    return Comparison(model, anchor, True, len(ours.photos), Estimate(value, np.nan, np.nan), None)


def decibels(ms_ssim: np.ndarray) -> np.ndarray:
    """MS-SSIM in dB, -10 log10(1 - MS-SSIM); nan where it is unknown, inf for exact copies."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(1 - np.asarray(ms_ssim, float))


def estimate(found: Estimate | None) -> str:
    """A BD-rate as text: "-12.3 % [-14.0, -10.5]", without an interval where there is none."""
    if found is None or np.isnan(found.value):
        return "-"
    text = f"{found.value:+.1f} %"
    return text if np.isnan(found.low) else f"{text} [{found.low:+.1f}, {found.high:+.1f}]"


def number(value: float, digits: int) -> str:
    """A figure as text, "-" for nan."""
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def means_table(found: SetResults) -> list[list[str]]:
    """Heads, and a row for each codec and setting: means over the photos, as text."""
    levels = max((found.means[model].level_bpp.shape[1] for model in found.models), default=0)
    heads = ["codec", "setting", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s", "peak MiB"]
    rows = [heads + [f"z_{level} bpp" for level in range(1, levels + 1)]]
    for codec in (*found.models, *found.rivals):
        means = found.means[codec]
        for index, setting in enumerate(means.settings):
            row = [codec, "-" if np.isnan(setting) else f"{setting:g}"]
            for field, digits in _DIGITS.items():
                row.append(number(getattr(means, field)[index], digits))
            level_bpp = [number(bpp, 4) for bpp in means.level_bpp[index]]
            rows.append(row + level_bpp + [""] * (levels - len(level_bpp)))
    return rows


def rates_table(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Heads, and a row for each comparison, as text."""
    rows = [["model", "against", "BD-rate of the mean curves", "mean of the photos' BD-rates", "photos"]]
    for found in comparisons:
        of_means = found.why or estimate(found.of_means)
        anchor = f"{found.anchor} (published)" if found.published else found.anchor
        photos = f"{found.photos}" + (f", {found.apart} apart" if found.apart else "")
        rows.append([found.model, anchor, of_means, estimate(found.mean), photos])
    return rows


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns of text, the heads underlined; the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    ]
    return "\n".join(lines)


_DIGITS = {"bpp": 4, "psnr": 2, "ms_ssim": 4, "encode_s": 3, "decode_s": 3, "peak_mib": 0}

"""Rate-distortion curves as pictures: models in strong colours, rivals thinner, published curves dashed."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlvc.evaluation.comparisons import SetResults, decibels
from nlvc.files import write_whole

INK, PAPER = "#1b1c1f", "#fefefd"
"""Text and ground, in colours that nothing else has, because `inline` replaces them."""
INKS = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
"""Matplotlib's settings for all that is written in INK."""
STRONG = ("#e0343c", "#2f6fdf", "#1f9d57", "#a04fd0", "#e08214", "#12a5b5")
FAINT = ("#8a6d5a", "#5f86a8", "#8d8a3c", "#9a6f9f", "#5f9683", "#b0785f", "#7e7f95", "#a08c70")
GRID = "#90909050"


class Line(NamedTuple):
    """One curve to draw: `y` by `bpp`, lowest rate first; kind is "model", "rival" or "published"."""

    name: str
    kind: str
    bpp: np.ndarray
    y: np.ndarray


def save_curves(found: SetResults, folder: Path) -> str:
    """Writes rd-SET.png and rd-SET.svg and returns the SVG. Raises ImportError without matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    texts = {"svg.fonttype": "none", "svg.hashsalt": found.name, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context({**texts, **INKS, "font.size": 10}):
        figure = Figure(figsize=(13, 5.4), facecolor=PAPER, layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, quality, label in zip(panels, ("psnr", "ms_ssim"), ("PSNR, dB", "MS-SSIM, dB"), strict=True):
            _draw(panel, list(lines(found, quality)), label)
        figure.suptitle(f"{found.name}: means over {found.photos} photos", x=0.01, ha="left", weight="bold")
        for suffix in ("png", "svg"):
            buffer = io.BytesIO()
            metadata = {"metadata": {"Date": None}} if suffix == "svg" else {"dpi": 130}
            figure.savefig(buffer, format=suffix, facecolor=PAPER, **metadata)
            write_whole(folder / f"rd-{found.name}.{suffix}", buffer.getvalue())
    return buffer.getvalue().decode()


def inline(svg: str) -> str:
    """An SVG of `save_curves` to stand inside a page: it takes the page's colours and width, and names no address."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' width="[^"]*pt"| height="[^"]*pt"| xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    return svg.replace(INK, "currentColor").replace(PAPER, "none")


def lines(found: SetResults, quality: str) -> Iterator[Line]:
    """The curves of a set with two points or more, published ones first and models last, so that these lie above.

    quality: "psnr", or "ms_ssim", which is drawn in dB. Points without a finite value are left out.
    """
    curves = [(name, "published", found.published[name]) for name in found.published]
    curves += [(name, "rival", found.means[name]) for name in found.rivals]
    curves += [(name, "model", found.means[name]) for name in found.models]
    for name, kind, curve in curves:
        y = getattr(curve, quality)
        y = decibels(y) if quality == "ms_ssim" else y
        bpp = curve.bpp[: len(y)]
        known = np.isfinite(y)
        if known.any():
            yield Line(name, kind, bpp[known], y[known])


def _draw(panel, drawn: list[Line], label: str) -> None:
    from matplotlib.ticker import NullLocator

    panel.set_facecolor("none")
    panel.set(xscale="log", xlabel="bits per pixel of the file", ylabel=label)
    panel.grid(color=GRID, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    if not drawn:
        panel.text(0.5, 0.5, "no photo is large enough", transform=panel.transAxes, ha="center")
        return
    # The rates of the models, where there are any, are what the picture is about.
    shown = [line for line in drawn if line.kind == "model"] or drawn
    low, high = 0.8 * min(line.bpp.min() for line in shown), 1.25 * max(line.bpp.max() for line in shown)
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8) if low <= tick <= high]
    panel.set_xlim(low, high)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    ends, numbers = [], Counter()
    for line in drawn:
        strong = line.kind == "model"
        palette = STRONG if strong else FAINT
        # Counted by kind: a published curve may have the colour of a rival, but is dashed.
        colour = palette[numbers[line.kind] % len(palette)]
        numbers[line.kind] += 1
        panel.plot(
            line.bpp, line.y, color=colour, linewidth=2.6 if strong else 1.2, marker="o" if len(line.y) < 40 else None,
            markersize=5.5 if strong else 2.5, linestyle="--" if line.kind == "published" else "-",
            zorder=4 if strong else 3,
        )  # fmt: skip
        if (end := _end(line, low, high)) is not None:
            ends.append((*end, line.name, colour, strong))
    seen = [y for line in drawn for bpp, y in zip(line.bpp, line.y, strict=True) if low <= bpp <= high]
    seen += [end[1] for end in ends]
    room = 0.04 * (max(seen) - min(seen)) or 1
    panel.set_ylim(min(seen) - room, max(seen) + room)
    label_ends(panel, ends)


def _end(line: Line, low: float, high: float) -> tuple[float, float] | None:
    """Where a curve ends or leaves the picture on the right; None for one that is not in it."""
    if line.bpp[0] > high or line.bpp[-1] < low:
        return None
    at = min(high, line.bpp[-1])
    return at, float(np.interp(np.log(at), np.log(line.bpp), line.y))


def label_ends(panel, ends: list[tuple]) -> None:
    """The curves' names beside the picture, from top to bottom as they end, moved apart, each led to its curve.

    ends: (x, y, name, colour, strong), where a curve ends; the panel's scales and limits are final.
    """
    to_axes = panel.transData + panel.transAxes.inverted()
    ends.sort(key=lambda end: -end[1])
    gap = min(0.045, 1 / max(len(ends), 1))
    places = [to_axes.transform((x, y))[1] for x, y, *_ in ends]
    for index in range(1, len(places)):
        places[index] = min(places[index], places[index - 1] - gap)
    lowest = 0.0
    for index in reversed(range(len(places))):
        places[index] = lowest = max(places[index], lowest)
        lowest += gap
    for (x, y, name, colour, strong), place in zip(ends, places, strict=True):
        panel.annotate(
            name, (x, y), xytext=(1.03, place), textcoords="axes fraction", va="center", color=colour,
            weight="bold" if strong else "normal", fontsize=9.5 if strong else 8.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 1,
                        "relpos": (0, 0.5)},
        )  # fmt: skip

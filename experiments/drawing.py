"""The pictures of the experiments, in the colours of the reports (`nlvc.evaluation.plots`)."""

import io
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nlvc.evaluation.plots import FAINT, GRID, INK, INKS, PAPER, STRONG, label_ends
from nlvc.files import write_whole


def intervals(rows: Sequence[tuple], path: Path, title: str, xlabel: str) -> None:
    """Effects with their intervals, one below the other: rows of (label, value, low, high, group); groups by colour."""
    groups, told = list(dict.fromkeys(row[4] for row in rows)), set()
    with _panel(path, title, xlabel, "", (8.5, 1.2 + 0.27 * len(rows))) as panel:
        panel.axvline(0, color=INK, linewidth=0.8)
        for place, (_, value, low, high, group) in enumerate(rows):
            colour = STRONG[groups.index(group) % len(STRONG)]
            panel.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            panel.plot(value, place, "o", color=colour, markersize=5, label=group if group not in told else None)
            told.add(group)
            text = f"{value:+.1f}" + (f"  [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "")
            beside = panel.get_yaxis_transform()
            panel.text(1.02, place, text if np.isfinite(value) else "-", transform=beside, va="center", fontsize=9)
        if len(groups) > 1:
            columns = 4 if sum(map(len, groups)) < 50 else 2
            panel.legend(
                frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, handletextpad=0.1, fontsize=9
            )
        panel.set_yticks(range(len(rows)), [row[0] for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)


def curves(
    lines: Iterable[tuple], path: Path, title: str, xlabel: str, ylabel: str, *, log_x: bool = False,
    log_y: bool = False, ticks: Sequence[float] | None = None,
) -> None:  # fmt: skip
    """y against x with what it may be: lines of (name, x, y, low, high), the last two None where there is no band.

    A sixth element, True, makes a line thin: something that others are compared with. nan is a gap.
    """
    with _panel(path, title, xlabel, ylabel, (8.5, 4.8)) as panel:
        ends, numbers, seen = [], {True: 0, False: 0}, []
        for name, x, y, low, high, *faint in lines:
            thin, x, y = any(faint), np.asarray(x, float), np.asarray(y, float)
            palette = FAINT if thin else STRONG
            colour = palette[numbers[thin] % len(palette)]
            known = np.isfinite(y)
            if not known.any():
                continue
            numbers[thin] += 1
            width, size = (1.2, 2.5) if thin else (2, 4)
            panel.plot(x, y, color=colour, linewidth=width, marker="o", markersize=size, zorder=3 if thin else 4)
            if low is not None:
                panel.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            ends.append((x[known][-1], y[known][-1], name, colour, not thin))
            seen.append((x, y))
        for place, (axis, wanted) in enumerate((("x", log_x), ("y", log_y))):
            if wanted and seen:
                _logarithmic(panel, axis, np.concatenate([line[place] for line in seen]))
        if ticks is not None:
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
        panel.autoscale_view()  # else the limits that labels are placed by come only when the picture is drawn
        label_ends(panel, ends)


def stacks(names: Sequence[str], parts: dict[str, Sequence[float]], path: Path, title: str, xlabel: str) -> None:
    """Bars, one below the other, each made of parts: part -> its length in each bar. Sums stand at their ends."""
    with _panel(path, title, xlabel, "", (8.5, 1.4 + 0.32 * len(names))) as panel:
        start = np.zeros(len(names))
        for number, (part, lengths) in enumerate(parts.items()):
            colour = (*STRONG, *FAINT)[number % len(STRONG + FAINT)]
            panel.barh(
                range(len(names)), lengths, 0.72, left=start, color=colour, label=part, edgecolor=PAPER, linewidth=0.8
            )
            start += lengths
        for place, total in enumerate(start):
            panel.text(total + 0.01 * max(start), place, f"{total:.3g}", va="center", fontsize=9)
        panel.set_xlim(0, 1.1 * max(start) or 1)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)
        panel.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left", handlelength=1)


@contextmanager
def _panel(path: Path, title: str, xlabel: str, ylabel: str, size: tuple[float, float]):
    """An empty panel, which is written as a PNG in the end."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**INKS, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=size, facecolor=PAPER, layout="constrained")
        panel = figure.subplots()
        panel.set_facecolor("none")
        panel.set_axisbelow(True)
        panel.grid(color=GRID, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        yield panel
        panel.set(xlabel=xlabel, ylabel=ylabel)
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor=PAPER, dpi=120)
    write_whole(path, buffer.getvalue())


def _logarithmic(panel, axis: str, values: np.ndarray) -> None:
    """A logarithmic axis around values, with at most nine ticks, at round numbers that are written out."""
    from matplotlib.ticker import NullLocator

    values = values[np.isfinite(values) & (values > 0)]
    low, high = 0.85 * values.min(), 1.18 * values.max()
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [tick for exponent in exponents for step in steps if low <= (tick := step * 10.0**exponent) <= high]
        if len(ticks) <= 9:
            break
    getattr(panel, f"set_{axis}scale")("log")
    getattr(panel, f"set_{axis}lim")(low, high)
    getattr(panel, f"set_{axis}ticks")(ticks, [f"{tick:g}" for tick in ticks])
    getattr(panel, f"{axis}axis").set_minor_locator(NullLocator())

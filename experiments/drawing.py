"""The pictures of the experiments, in the colours of the reports (`nlvc.evaluation.plots`)."""

import io
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nlvc.evaluation.plots import GRID, STRONG, label_ends
from nlvc.files import write_whole


def intervals(rows: Sequence[tuple], path: Path, title: str, xlabel: str) -> None:
    """Effects with their intervals, one below the other: rows of (label, value, low, high, group); groups by colour."""
    groups = list(dict.fromkeys(row[4] for row in rows))
    with _panel(path, title, xlabel, "", (8, 1.2 + 0.27 * len(rows))) as panel:
        panel.axvline(0, color="black", linewidth=0.8)
        for place, (_, value, low, high, group) in enumerate(rows):
            colour = STRONG[groups.index(group) % len(STRONG)]
            panel.plot([low, high], [place, place], color=colour, linewidth=2)
            panel.plot(value, place, "o", color=colour, markersize=5)
        panel.set_yticks(range(len(rows)), [row[0] for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)


def curves(
    lines: Iterable[tuple], path: Path, title: str, xlabel: str, ylabel: str, *, log_x: bool = False,
    log_y: bool = False, ticks: Sequence[float] | None = None,
) -> None:  # fmt: skip
    """y against x with what it may be: lines of (name, x, y, low, high), the last two None where there is no band."""
    with _panel(path, title, xlabel, ylabel, (8, 4.6)) as panel:
        ends = []
        for number, (name, x, y, low, high) in enumerate(lines):
            colour = STRONG[number % len(STRONG)]
            known = np.isfinite(np.asarray(y, float))
            if not known.any():
                continue
            panel.plot(x, y, color=colour, linewidth=2, marker="o", markersize=4, zorder=4)
            if low is not None:
                panel.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            ends.append((np.asarray(x)[known][-1], np.asarray(y)[known][-1], name, colour, True))
        panel.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        if ticks is not None:
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
        label_ends(panel, ends)


def stacks(names: Sequence[str], parts: dict[str, Sequence[float]], path: Path, title: str, xlabel: str) -> None:
    """Bars, one below the other, each made of parts: part -> its length in each bar."""
    with _panel(path, title, xlabel, "", (8, 1.4 + 0.32 * len(names))) as panel:
        start = np.zeros(len(names))
        for number, (part, lengths) in enumerate(parts.items()):
            panel.barh(range(len(names)), lengths, left=start, color=STRONG[number % len(STRONG)], label=part)
            start += lengths
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        panel.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")


@contextmanager
def _panel(path: Path, title: str, xlabel: str, ylabel: str, size: tuple[float, float]):
    """An empty panel, which is written as a PNG in the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    panel.set_axisbelow(True)
    panel.grid(color=GRID, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    yield panel
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.set_title(title, loc="left", weight="bold", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_whole(path, buffer.getvalue())

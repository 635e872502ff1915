"""What the command shows while it works: a table that is drawn again in its place, or lines where that cannot be."""

import math
import shutil
import time
from collections.abc import Iterable
from typing import TextIO

from nlvc.sweeping.progress import DONE, FAILED, STOPPED, TRAINING, WAITING, Progress

HEADS = ("cell", "state", "step", "loss", "bpp", "PSNR dB", "images/s", "left")
REDRAW = 0.5
"""Seconds between drawings, at least."""
LINE_EVERY = 60.0
"""Seconds between two lines of one cell that trains, at least."""


class Screen:
    """Takes in what is told of the cells. A context manager: at the end the table is complete."""

    def __init__(self, cells: Iterable[str], out: TextIO):
        self._newest = {cell: Progress(cell, WAITING) for cell in cells}
        self._out, self._live = out, out.isatty()
        self._drawn, self._lines = 0.0, 0
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._draw()

    def tell(self, progress: Progress | None) -> None:
        """Something new of a cell, or None: only time has passed."""
        if progress:
            self._newest[progress.cell] = progress
        now = time.monotonic()
        if self._live:
            if now - self._drawn >= REDRAW:
                self._draw()
        elif progress and (progress.state != TRAINING or now - self._said.get(progress.cell, -math.inf) >= LINE_EVERY):
            self._said[progress.cell] = now
            print(line(progress), file=self._out, flush=True)

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        text = table(list(self._newest.values()), size.lines - 1)
        lines = [line[: size.columns - 1] for line in text.splitlines()]
        # Up to the first line of the last drawing, then everything below it is cleared.
        start = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        self._out.write(start + "\n".join(lines) + "\n")
        self._out.flush()
        self._drawn, self._lines = time.monotonic(), len(lines)


def line(progress: Progress) -> str:
    """One cell in one line, without a final newline."""
    _, state, step, loss, bpp, psnr, speed, left = row(progress)
    text = f"{progress.cell}: {state}"
    if progress.state == FAILED:
        return f"{text}: {progress.text}"
    if progress.step:
        text += f", step {step}"
    if progress.state in (TRAINING, STOPPED) and progress.images_per_second:
        psnr = f", {psnr} dB" if psnr else ""
        text += f", loss {loss}, {bpp} bpp{psnr}, {speed} images/s, {left} left"
    return text


def table(newest: list[Progress], height: int) -> str:
    """At most `height` lines: the cells that are at work first, and how many there are in each state last."""
    counts: dict[str, int] = {}
    for progress in newest:
        counts[progress.state] = counts.get(progress.state, 0) + 1
    room = max(1, height - 3)
    if len(newest) > room:
        at_rest = (WAITING, DONE)
        order = sorted(newest, key=lambda progress: at_rest.index(progress.state) if progress.state in at_rest else -1)
        chosen = {progress.cell for progress in order[:room]}
        shown = [progress for progress in newest if progress.cell in chosen]
    else:
        shown = newest
    rows = [HEADS, *map(row, shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = []
    for cells in rows:
        left = [text.ljust(width) for text, width in zip(cells[:2], widths, strict=False)]
        right = [text.rjust(width) for text, width in zip(cells[2:], widths[2:], strict=True)]
        lines.append("  ".join([*left, *right]).rstrip())
    lines.append(f"{len(newest)} cells: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    return "\n".join(lines)


def row(progress: Progress) -> tuple[str, ...]:
    """One cell under the heads; what is not known yet is empty."""
    step = f"{progress.step}/{progress.steps}" if progress.steps else ""
    speed = f"{progress.images_per_second:.3g}" if progress.images_per_second else ""
    left = duration(progress.seconds_left) if progress.state == TRAINING else ""
    figures = (f"{progress.loss:.3f}", f"{progress.bpp:.3f}", f"{progress.psnr:.2f}")
    return (progress.cell, progress.state, step, *("" if text == "nan" else text for text in figures), speed, left)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds; empty where not known."""
    if not math.isfinite(seconds):
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"

"""Tables in Markdown, as the experiments keep them."""

import math
from collections.abc import Sequence

from effects import Effect, Runs


def markdown(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table whose columns are aligned in the text, too."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def interval(its: Effect) -> str:
    """An effect with its 95 % interval, as far as they are known."""
    if not math.isfinite(its.value):
        return "unknown"
    return f"{its.value:+.2f}" + (f" [{its.low:+.2f}, {its.high:+.2f}]" if math.isfinite(its.low) else "")


def told(budget: str, photos: int, seeds: int) -> str:
    """What a table is of."""
    counted = (f"{count} {word}{'s' * (count > 1)}" for count, word in ((photos, "photo"), (seeds, "seed")))
    return f"Budget: {budget}; {', '.join(counted)}."


def points_of(its: Runs) -> str:
    """Mean bpp/PSNR over seeds and photos at each quality."""
    means = zip(its.bpp.mean((0, 1)), its.psnr.mean((0, 1)), strict=True)
    return ", ".join(f"{bpp:.3f}/{psnr:.2f}" for bpp, psnr in means)

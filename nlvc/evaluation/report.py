"""What a run shows at its end: a table of coded photos and a picture of where the bits went."""

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlvc.evaluation.metrics import psnr
from nlvc.files import write_csv


class Row(NamedTuple):
    """One coded photo.

    Attributes:
      name: what the table calls it.
      width, height: pixels.
      bytes: size of the file.
      bpp: bits per pixel of the file, 8 * bytes / (width * height).
      bpp_estimated: bits per pixel by the model's densities, before any coding; nan where unknown.
      psnr: dB on 8-bit pixels; inf for an exact copy.
      ms_ssim: in [0, 1]; nan for photos under 161 pixels.
      level_bpp: bits per pixel spent on each latent in the file, z_1 first.
    """

    name: str
    width: int
    height: int
    bytes: int
    bpp: float
    bpp_estimated: float
    psnr: float
    ms_ssim: float
    level_bpp: tuple[float, ...] = ()


def table(rows: Sequence[Row]) -> str:
    """Aligned text: one line for each photo and their plain mean, without a final newline.

    The mean skips photos whose value is unknown (nan, printed as "-"), column by column. Levels are in bits per pixel.

    Raises:
      ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a table needs at least one photo")
    levels = max(len(row.level_bpp) for row in rows)
    heads = ["photo", "size", "bytes", "bpp (real)", "bpp (estimated)", "PSNR dB", "MS-SSIM"]
    heads += [f"z_{level} bpp" for level in range(1, levels + 1)]
    figures = np.array(
        [
            [row.bytes, row.bpp, row.bpp_estimated, row.psnr, row.ms_ssim]
            + [*row.level_bpp, *[math.nan] * (levels - len(row.level_bpp))]
            for row in rows
        ]
    )
    means = [np.mean(known) if (known := column[~np.isnan(column)]).size else math.nan for column in figures.T]
    digits = [0, 4, 4, 2, 4] + [4] * levels
    lines = [[row.name, f"{row.width}x{row.height}"] for row in rows] + [["mean", ""]]
    for line, values in zip(lines, [*figures, means], strict=True):
        line += ["-" if np.isnan(value) else f"{value:.{n}f}" for value, n in zip(values, digits, strict=True)]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    rule = "  ".join("-" * width for width in widths)

    def aligned(cells):
        name, *numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *numbers])

    return "\n".join([aligned(heads), rule, *map(aligned, lines[:-1]), rule, aligned(lines[-1])])


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """The same figures unrounded as a CSV file, whole or not at all; each level has a column, bpp_1, bpp_2, ..."""
    records = []
    for row in rows:
        record = row._asdict()
        levels = record.pop("level_bpp")
        records.append({**record, **{f"bpp_{level}": bpp for level, bpp in enumerate(levels, start=1)}})
    write_csv(path, records)


# Dark to light with evenly rising lightness, so that more bits look brighter, in grey and to colour-blind eyes too.
_ANCHORS = ((13, 10, 38), (60, 20, 104), (122, 30, 116), (186, 50, 96), (231, 92, 60), (248, 155, 50), (250, 240, 170))

_PHOTO_BOX = 640, 560  # each photo is fitted into it
_SMALLEST_WIDTH = 320  # of a photo as shown; lesser ones are enlarged
_MAPS_IN_A_ROW, _NARROWEST_MAP = 5, 176  # the labels of a map need some room
_MARGIN, _GAP = 28, 20
_PAPER, _INK, _FAINT = (255, 255, 255), (28, 28, 34), (112, 112, 122)


def colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (clipped; nan counts as 0), any shape (...) -> uint8 colours (..., 3), darkest at 0."""
    values = np.clip(np.nan_to_num(values), 0, 1)
    positions = np.linspace(0, 1, len(_ANCHORS))
    channels = [np.interp(values, positions, channel) for channel in zip(*_ANCHORS, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def save_picture(
    path: str | os.PathLike,
    original: np.ndarray,
    reconstruction: np.ndarray,
    bits_per_level: Sequence[np.ndarray],
    title: str,
    strides: Sequence[int] | None = None,
) -> None:
    """Draws a photo, its reconstruction and, for each level, a map of where its bits went; saves it as a picture.

    The photos are scaled to fit, large ones down and tiny ones up. Each map is enlarged without smoothing to one common
    size and has its own scale of colours, from 0 to its largest value, given below it. Above it stand its size (w x h)
    and what the level cost, in bits per pixel of the photo, or in bits where that is under 0.001.

    Args:
      path: file to write, its format by its extension (PNG is right).
      original, reconstruction: uint8 arrays (H, W) or (H, W, 3 or 4) of one shape.
      bits_per_level: for each level, z_1 first, a float array (h, w): bits spent at each latent position, all channels
        together, finite and >= 0. No level at all draws the photos alone.
      title: one line above the photos.
      strides: pixels between neighbouring positions of each level. With them, a map that reaches past the photo (the
        padding) is cut where the photo ends; without them each map is taken to cover exactly the photo.

    Raises:
      ValueError: the photos differ in shape or are not uint8; a map is not 2-D; strides of another length.
    """
    quality = psnr(original, reconstruction)
    maps = [np.asarray(bits, np.float64) for bits in bits_per_level]
    if any(bits.ndim != 2 or not bits.size for bits in maps):
        raise ValueError(f"each level's bits must be a 2-D array, got shapes {[bits.shape for bits in maps]}")
    if strides is not None and len(strides) != len(maps):
        raise ValueError(f"one stride for each of the {len(maps)} levels is needed, got {len(strides)}")
    height, width = original.shape[:2]
    photo_width, photo_height = _shown_size(width, height)
    panel = max(photo_width, _SMALLEST_WIDTH)
    total_width = 2 * panel + _GAP
    columns, map_rows = _grid(len(maps), total_width)
    cell = (total_width - (columns - 1) * _GAP) // columns
    scale = min(cell / width, photo_height / height)
    map_size = max(1, round(width * scale)), max(1, round(height * scale))

    photos_top = _MARGIN + 34
    maps_top = photos_top + photo_height + 96
    row_height = map_size[1] + 82
    bottom = maps_top + map_rows * row_height - 26 if maps else photos_top + photo_height + 28
    canvas = Image.new("RGB", (total_width + 2 * _MARGIN, bottom + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, _INK, _fitting_font(draw, title, 20, total_width), anchor="lt")

    captions = f"original, {width} x {height}", f"reconstruction, {quality:.2f} dB PSNR"
    for column, (photo, caption) in enumerate(zip((original, reconstruction), captions, strict=True)):
        left = _MARGIN + column * (panel + _GAP)
        canvas.paste(_shown(photo, (photo_width, photo_height)), (left, photos_top))
        draw.text((left, photos_top + photo_height + 10), caption, _FAINT, _font(15), anchor="lt")

    if maps:
        draw.text((_MARGIN, maps_top - 38), "Where the bits went, level by level", _INK, _font(16), anchor="lt")
    for index, bits in enumerate(maps):
        row, column = divmod(index, columns)
        corner = _MARGIN + column * (cell + _GAP), maps_top + row * row_height
        extent = bits.shape if strides is None else (height / strides[index], width / strides[index])
        _draw_map(canvas, corner, cell, map_size, f"{index + 1}", bits, extent, height * width)
    canvas.save(path)


def _draw_map(canvas, corner, cell, size, level, bits, extent, pixels):
    """One level: its labels, over the whole cell's width, then its map and the scale of its colours."""
    left, top = corner
    width, height = size
    draw = ImageDraw.Draw(canvas)
    total, largest = float(bits.sum()), float(bits.max())
    cost = f"{total / pixels:.4f} bpp" if total / pixels >= 1e-3 else f"{total:.0f} bits"
    draw.text((left, top + 14), "z", _INK, _font(18), anchor="ls")
    draw.text((left + 10, top + 17), level, _INK, _font(11), anchor="ls")
    draw.text((left + 26, top + 14), f"{bits.shape[1]} x {bits.shape[0]}", _FAINT, _font(13), anchor="ls")
    draw.text((left + cell, top + 14), cost, _INK, _font(14), anchor="rs")

    # Centres of the shown pixels in the map's own units: the nearest position, cut where the photo ends.
    rows, columns = (
        np.minimum((np.arange(shown) + 0.5) / shown * reach, limit - 1).astype(int)
        for shown, reach, limit in zip((height, width), extent, bits.shape, strict=True)
    )
    heat = colours(bits[np.ix_(rows, columns)] / (largest or 1))
    canvas.paste(Image.fromarray(heat), (left, top + 22))

    bar = Image.fromarray(np.repeat(colours(np.linspace(0, 1, cell))[None], 6, axis=0))
    canvas.paste(bar, (left, top + 28 + height))
    draw.text((left, top + 38 + height), "0", _FAINT, _font(12), anchor="lt")
    draw.text((left + cell, top + 38 + height), f"{largest:.3g} bits/position", _FAINT, _font(12), anchor="rt")


def _grid(count: int, width: int) -> tuple[int, int]:
    """Columns and rows of `count` maps, rows as even as can be; at least two columns, so that one map is not huge."""
    most = min(_MAPS_IN_A_ROW, (width + _GAP) // (_NARROWEST_MAP + _GAP))
    rows = -(-count // most)
    return max(2, -(-count // max(rows, 1))), rows


def _shown_size(width: int, height: int) -> tuple[int, int]:
    """The size at which a photo is drawn: fitted into the box, small photos enlarged by a whole factor."""
    factor = min(_PHOTO_BOX[0] / width, _PHOTO_BOX[1] / height)
    if factor >= 1:
        factor = min(math.floor(factor), math.ceil(_SMALLEST_WIDTH / width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _shown(photo: np.ndarray, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(photo.squeeze(-1) if photo.ndim == 3 and photo.shape[-1] == 1 else photo)
    if picture.mode == "RGBA":
        paper = Image.new("RGBA", picture.size, (*_PAPER, 255))
        picture = Image.alpha_composite(paper, picture)
    smaller = size[0] < picture.width or size[1] < picture.height
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _fitting_font(draw, text: str, size: int, width: int):
    while size > 9 and draw.textlength(text, _font(size)) > width:
        size -= 1
    return _font(size)


@functools.cache
def _font(size: int):
    return ImageFont.load_default(size=size)

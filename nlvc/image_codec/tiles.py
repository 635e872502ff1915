"""Where the tiles of a picture lie, level by level, and what surrounds them."""

import math
from typing import NamedTuple

import numpy as np

from nlvc.config import Config
from nlvc.models.lapped import borders

TILE = 1024
"""Usual side of a tile in pixels: the networks see a quarter more, and a message's own few bytes do not count."""
STEP = 128
"""Networks are compiled for sides that are multiples of this many pixels, so that few programs serve all sizes."""


class Box(NamedTuple):
    """A rectangle of positions of one level (or of pixels)."""

    top: int
    left: int
    height: int
    width: int

    def of(self, plane: np.ndarray) -> np.ndarray:
        """That part of (H, W, C), a view."""
        return plane[self.top : self.top + self.height, self.left : self.left + self.width]

    def finer(self, by: int) -> "Box":
        """The same rectangle in positions of a lattice that is `by` times as fine."""
        return Box(*(side * by for side in self))

    def coarser(self, by: int) -> "Box":
        """The positions of a lattice that is `by` times as coarse which show the rectangle, all or in part."""
        top, left = self.top // by, self.left // by
        bottom, right = -(-(self.top + self.height) // by), -(-(self.left + self.width) // by)
        return Box(top, left, bottom - top, right - left)


class Grid(NamedTuple):
    """A picture of height x width pixels, continued to whole positions of z_L and cut into tiles. Level 0: pixels."""

    config: Config
    height: int
    width: int
    tile: int

    def stride(self, level: int) -> int:
        """Pixels of a position of z_level in each direction."""
        return math.prod(self.config.level_strides[:level])

    def shape(self, level: int) -> tuple[int, int]:
        """Height and width of z_level, or for level 0 of the continued picture."""
        total, stride = self.stride(self.config.L), self.stride(level)
        return -(-self.height // total) * total // stride, -(-self.width // total) * total // stride

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // self.tile), -(-self.width // self.tile)

    def box(self, level: int, tile: int) -> Box:
        """Where a tile lies in z_level; tiles are counted row by row."""
        side, (height, width) = self.tile // self.stride(level), self.shape(level)
        row, column = divmod(tile, self.tiles[1])
        top, left = row * side, column * side
        return Box(top, left, min(side, height - top), min(side, width - left))

    def touched(self, level: int, boxes: list[Box], margin: int) -> list[int]:
        """The tiles of z_level that the boxes, in z_level and widened by a margin, touch."""
        side, (rows, columns), found = self.tile // self.stride(level), self.tiles, set()
        for box in boxes:
            last_row = min((box.top + box.height + margin - 1) // side, rows - 1)
            last_column = min((box.left + box.width + margin - 1) // side, columns - 1)
            for row in range(max(box.top - margin, 0) // side, last_row + 1):
                first = row * columns
                found.update(range(first + max(box.left - margin, 0) // side, first + last_column + 1))
        return sorted(found)

    def compiled(self, box: Box, level: int) -> Box:
        """The box, grown down and right to a size that networks are compiled for."""
        step = max(1, STEP // self.stride(level))
        return box._replace(height=-(-box.height // step) * step, width=-(-box.width // step) * step)

    def borders(self, box: Box, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """Which borders between rows, and columns, of a box of z_1 and its margin lie inside the picture."""
        return tuple(
            borders(first, count, margin, total)
            for first, count, total in zip(box[:2], box[2:], self.shape(1), strict=True)
        )


def around(plane: np.ndarray, box: Box, margin: int) -> np.ndarray:
    """The box and its margin, cut from (H, W, C) continued by its edge: (1, h + 2 margin, w + 2 margin, C)."""
    rows = np.clip(np.arange(box.top - margin, box.top + box.height + margin), 0, plane.shape[0] - 1)
    columns = np.clip(np.arange(box.left - margin, box.left + box.width + margin), 0, plane.shape[1] - 1)
    if rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns):
        return plane[None, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return plane[rows[:, None], columns[None]][None]

"""z_1 of models with a context: what of it is coded tells how the rest is, so it is coded step by step.

Not even the encoder, who knows all of z_1, can take the steps at once: bins are centred on means, and those depend on
the symbols that were chosen before.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nlvc import coding
from nlvc.image_codec.model import CodecError, Model
from nlvc.image_codec.rounding import in_units
from nlvc.image_codec.tiles import Box, Grid
from nlvc.models.context import REACH, order, parts, seen
from nlvc.models.frozen import MEAN_UNITS


class Told(NamedTuple):
    """What z_2 says of a box of z_1, as compiled: means and log scales (H, W, C) in units, a stream for each part."""

    means: np.ndarray
    scales: np.ndarray
    streams: list[np.ndarray]


def choose(model: Model, grid: Grid, z: np.ndarray, above: np.ndarray, box: Box, pick: Callable) -> tuple:
    """(symbols, tables, indices, means in units) of a box of z_1 (h, w, C) in bins, given all of z_2 in units.

    pick: (offsets in bins, tables, indices, place) -> symbols of one place of `order`, element by element.
    """
    inside, look = _walk(model, grid, above, box)
    symbols, indices, means = (np.empty(z.shape, np.int32) for _ in range(3))
    for place in order(model.config, box.height, box.width):
        means[place], indices[place] = look(place)
        offsets = z[place] - means[place].astype(np.float32) / MEAN_UNITS
        symbols[place] = pick(offsets, model.tables, indices[place], place)
        inside[place] = in_units(symbols[place], means[place])
    return symbols, model.tables, indices, means


def push(model: Model, symbols: np.ndarray, indices: np.ndarray) -> bytes:
    """One message of symbols (h, w, C), in the order in which `pop` needs them."""
    message = coding.empty_message(coding.LANES)
    for place in reversed(order(model.config, *symbols.shape[:2])):
        message = coding.indexed(model.tables, indices[place]).push(message, symbols[place])
    return coding.to_bytes(message)


def pop(model: Model, grid: Grid, above: np.ndarray, box: Box, data: bytes) -> np.ndarray:
    """z_1 of a box in units, int16 (h, w, C). Raises ValueError for a message that is not its own."""
    message = coding.from_bytes(data, coding.LANES)
    inside, look = _walk(model, grid, above, box)
    for place in order(model.config, box.height, box.width):
        means, indices = look(place)
        message, symbols = coding.indexed(model.tables, indices).pop(message)
        inside[place] = in_units(symbols, means)
    if coding.bits(message):
        raise CodecError("damaged file: something is left after the last symbol of a message")
    return inside


def _walk(model: Model, grid: Grid, above: np.ndarray, box: Box) -> tuple[np.ndarray, Callable]:
    """z_1 of a box in units, int16 (h, w, C), to be filled in, and a function from a place of `order`, those before it
    filled in, to its means in units and its indices."""
    told = Told(*model.hyper(grid, above, box))
    height, width, channels = told.means.shape
    decoded = np.zeros((height + 2 * REACH, width + 2 * REACH, channels), np.int16)
    look = _line(model, told, decoded) if model.config.context == "spatial" else _slice(model, told, decoded, box)
    return decoded[REACH:, REACH:][: box.height, : box.width], look


def _slice(model: Model, told: Told, decoded: np.ndarray, box: Box) -> Callable:
    """A function from a slice of `order`, those before it decoded, to its means and indices (h, w, c)."""
    numbers = {channels.start: part for part, channels in enumerate(parts(model.config))}

    def look(place):
        part = numbers[place[-1].start]
        looked = decoded[None, :, :, : seen(model.config, part)]
        z_2 = (v[None] for v in (told.streams[part], told.means[place], told.scales[place]))
        return tuple(v[0, : box.height, : box.width] for v in model.context(part, looked, *z_2))

    return look


def _line(model: Model, told: Told, decoded: np.ndarray) -> Callable:
    """A function from a line of `order`, those before it decoded, to its means and indices (n, C)."""
    height, width, _ = told.means.shape
    longest = min(height, -(-width // (REACH + 1)))
    # A view of the surroundings of every position, in order of rows, columns, and those of the surroundings.
    around = np.lib.stride_tricks.sliding_window_view(decoded, (2 * REACH + 1,) * 2, axis=(0, 1))
    around = np.moveaxis(around, 2, -1)

    def look(place):
        # Programs are compiled for the longest line.
        rows, columns = (np.resize(numbers, longest) for numbers in place)
        z_2 = (v[rows, columns][:, None, None] for v in (told.streams[0], told.means, told.scales))
        return tuple(v[: len(place[0]), 0, 0] for v in model.context(0, around[rows, columns], *z_2))

    return look

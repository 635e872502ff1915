"""Pixels <-> streams: down the chain of levels, tile by tile. Tiles of one level wait for the level above alone.

    pixels --infer--> z_1..z_L --choose--> symbols --push--> streams
    pixels <--synthesise-- z_1 <-- ... <-- z_L <--pop-- streams, by the same conditionals
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nlvc import coding
from nlvc.image_codec import causal
from nlvc.image_codec.model import CodecError, Model
from nlvc.image_codec.rounding import cheapest, improved, in_units, nearest
from nlvc.image_codec.tiles import Box, Grid, around
from nlvc.models.frozen import MEAN_UNITS, level_margins, reduction, synthesis_margins

Observer = Callable[[int, Box, coding.Tables, np.ndarray, np.ndarray], None]


def each(function: Callable, items: Iterable) -> list:
    """[function(item) ...], some at a time: NumPy, Numba and JAX let go of Python's lock."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def encode(
    model: Model, grid: Grid, pixels: np.ndarray, observe: Observer | None = None, effort: int = 0,
    latent: np.ndarray | None = None,
):  # fmt: skip
    """uint8 (H, W, 3) -> (streams by level, z_1 first, and tile; z_1 in units).

    observe is told of every tile; effort: how often the symbols of z_1 are improved by what they do to the picture;
    latent: z_1 in bins, where it is not for the model to infer it.
    """
    config, tiles = model.config, range(grid.tiles[0] * grid.tiles[1])
    if effort and config.context != "none":
        raise CodecError("a model with a context has no effort: each of its symbols changes how others are coded")
    latents = [inferred(model, grid, 1, pixels) if latent is None else latent]
    for level in range(2, config.L + 1):
        latents.append(inferred(model, grid, level, latents[-1]))
    streams, above = [], None
    for level in range(config.L, 0, -1):
        z, units = latents.pop(), _empty(grid, level, np.int16)

        def chosen(tile, level=level, z=z, units=units, above=above):
            box = grid.box(level, tile)
            symbols, *conditional = choose(model, grid, level, z, above, box)
            box.of(units)[:] = in_units(symbols, conditional[2])
            return box, symbols, *conditional

        def code(tile, level=level, units=units, chosen=chosen, first=None):
            box, symbols, tables, indices, means = chosen(tile)
            if first is not None:
                symbols = refine(model, grid, box, pixels, first, symbols, tables, indices, means, effort)
                box.of(units)[:] = in_units(symbols, means)
            if observe:
                observe(level, box, tables, symbols, indices)
            if level == 1 and config.context != "none":
                return causal.push(model, symbols, indices)
            return push(symbols, tables, indices)

        if level == 1 and effort and model.distortion_weight is not None:
            # Tiles are improved one by one, each among the first symbols of those around it.
            each(lambda tile, chosen=chosen: chosen(tile) and None, tiles)
            code = functools.partial(code, first=units.copy())
        streams.append(each(code, tiles))
        above = units
    return streams[::-1], above


def choose(model: Model, grid: Grid, level: int, z: np.ndarray, above: np.ndarray | None, box: Box) -> tuple:
    """(symbols, tables, indices, means in units) of a box of z_level, given all of it in bins."""

    z = box.of(z)

    def pick(offsets, tables, indices, place=...):
        if level == 1 and model.distortion_weight is not None:
            return cheapest(offsets, tables, indices, np.broadcast_to(model.distortion_weight, z.shape)[place])
        return nearest(offsets)

    if level == 1 and model.config.context != "none":
        return causal.choose(model, grid, z, above, box, pick)
    tables, indices, means = model.conditional(grid, level, above, box)
    return pick(z - means.astype(np.float32) / MEAN_UNITS, tables, indices), tables, indices, means


def refine(model: Model, grid: Grid, box: Box, pixels, first: np.ndarray, symbols, tables, indices, means, effort: int):
    """The symbols of a box of z_1, improved up to `effort` times, as long as bits and error of the picture become less.

    first: all of z_1 in units, as it was chosen first; pixels: uint8 (H, W, 3), the whole picture.
    """
    margin = 2 * synthesis_margins(model.config)[0]
    window = np.array(around(first, grid.compiled(box, 1), margin))
    inner = Box(margin, margin, box.height, box.width).of(window[0])
    best, least = symbols, np.inf
    for still in reversed(range(effort + 1)):
        inner[:] = in_units(symbols, means)
        error, gradient = model.error(grid, window, pixels, box, with_gradient=still > 0)
        cost = error + coding.ideal_bits(tables, symbols, indices).sum()
        if cost >= least:
            break
        best, least = symbols, cost
        if still:
            symbols = improved(symbols, gradient, tables, indices, model.distortion_weight)
    return best


def decode(
    model: Model,
    grid: Grid,
    stream: Callable[[int, int], bytes],
    region: Box,
    *,
    preview: bool = False,
    lost: set[tuple[int, int]] | None = None,
) -> np.ndarray:
    """The pixels of a region, uint8 (h, w, 3). stream(level, tile) gives the messages; only what is needed is read.

    Args:
      preview: the region in small, ceil(side / r) for the model's `reduction` r, without the synthesis.
      lost: if given, a damaged message costs only its tile, and those that look into it: their elements take their
        means, and their (level, tile) is added to this set.

    Raises:
      ValueError: for a damaged message, if `lost` is not given.
    """
    config = model.config
    needed = {1: grid.touched(1, [region.coarser(config.level_strides[0])], synthesis_margins(config)[0])}
    for level in range(1, config.L):
        boxes = [grid.box(level, tile).coarser(config.level_strides[level]) for tile in needed[level]]
        needed[level + 1] = grid.touched(level + 1, boxes, level_margins(config, level)[0])
    above = None
    for level in range(config.L, 0, -1):
        units = _empty(grid, level, np.int16)

        def code(tile, level=level, units=units, above=above):
            box = grid.box(level, tile)
            try:
                if lost is not None and level < config.L:
                    higher = box.coarser(config.level_strides[level])
                    seen = grid.touched(level + 1, [higher], level_margins(config, level)[0])
                    if any((level + 1, other) in lost for other in seen):
                        raise CodecError("what it depends on is lost")
                box.of(units)[:] = decode_box(model, grid, level, above, box, stream(level, tile))
            except ValueError:
                if lost is None:
                    raise
                lost.add((level, tile))
                box.of(units)[:] = in_units(0, model.conditional(grid, level, above, box)[2])

        each(code, needed[level])
        above = units
    return reconstruct(model, grid, above, region, preview)


def decode_box(model: Model, grid: Grid, level: int, above: np.ndarray | None, box: Box, data: bytes) -> np.ndarray:
    """A box of z_level in units, of one message, given all of z_{level+1}. Raises ValueError for a damaged message."""
    if level == 1 and model.config.context != "none":
        return causal.pop(model, grid, above, box, data)
    tables, indices, means = model.conditional(grid, level, above, box)
    return in_units(pop(data, tables, indices), means)


def push(symbols: np.ndarray, tables: coding.Tables, indices: np.ndarray) -> bytes:
    """One message of symbols, each by the table of its index."""
    return coding.to_bytes(coding.indexed(tables, indices).push(coding.empty_message(coding.LANES), symbols))


def pop(data: bytes, tables: coding.Tables, indices: np.ndarray) -> np.ndarray:
    """The symbols of one message. Raises ValueError (MessageError, CodecError) for one that is not theirs."""
    message, symbols = coding.indexed(tables, indices).pop(coding.from_bytes(data, coding.LANES))
    if coding.bits(message):
        raise CodecError("damaged file: something is left after the last symbol of a message")
    return symbols


def reconstruct(model: Model, grid: Grid, z: np.ndarray, region: Box, preview: bool = False) -> np.ndarray:
    """uint8 (h, w, 3) of a region of the picture, from z_1 in units; or a preview of it."""
    stride, draw_box = model.config.level_strides[0], model.preview if preview else model.synthesise
    if preview:
        stride, region = stride // reduction(model.config), region.coarser(reduction(model.config))
    out = np.empty((region.height, region.width, 3), np.uint8)

    def draw(tile):
        box = grid.box(1, tile)
        place = box.finer(stride)
        top, left = max(place.top, region.top), max(place.left, region.left)
        bottom = min(place.top + place.height, region.top + region.height)
        right = min(place.left + place.width, region.left + region.width)
        pixels = draw_box(grid, z, box)
        part = pixels[top - place.top : bottom - place.top, left - place.left : right - place.left]
        out[top - region.top : bottom - region.top, left - region.left : right - region.left] = part

    each(draw, grid.touched(1, [region.coarser(stride)], 0))
    return out


def _empty(grid: Grid, level: int, kind) -> np.ndarray:
    # Zeros, because tiles that a region does not need are looked at by nobody but must not hold old memory.
    return np.zeros((*grid.shape(level), grid.config.level_channels[level - 1]), kind)


def inferred(model: Model, grid: Grid, level: int, below: np.ndarray) -> np.ndarray:
    """z_level in bins of the whole picture, float32 (h, w, C), of z_{level-1}, or of uint8 pixels (H, W, 3) for z_1."""
    plane = _empty(grid, level, np.float32)

    def fill(tile):
        box = grid.box(level, tile)
        box.of(plane)[:] = model.infer(grid, level, below, box)

    each(fill, range(grid.tiles[0] * grid.tiles[1]))
    return plane

"""Codecs: pairs of functions that compose.

    message = codec.push(message, data)         encodes data on top of the message
    message, data = codec.pop(message)          undoes exactly that, message included

A message is last in, first out. Whatever codes several things does so in *decoding* order and pushes in reverse.
The combinators are those of Craystack (https://github.com/j-towns/craystack), with its bits.
"""

import importlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nlvc.coding import rans
from nlvc.coding.tables import Tables, checked_indices, checked_symbols

# Two lanes let the processor work on two symbols at once: decoding takes a tenth less time, and more lanes gain no
# more. A message costs at most 8 bytes more than its content on one lane, and 4.5 more for each further one: with two
# even the shortest stays within 16 bytes of it, with three not.
LANES = 2


class Codec(NamedTuple):
    """A way to code one kind of data.

    Attributes:
      push: (message, data) -> message. Raises ValueError for data it cannot code.
      pop: (message) -> (message, data). Raises rans.MessageError for a message that cannot hold such data.
    """

    push: Callable[[rans.Message, Any], rans.Message]
    pop: Callable[[rans.Message], tuple[rans.Message, Any]]


def non_uniform(interval: Callable, symbol_at: Callable, precision: ArrayLike) -> Codec:
    """Codec for one symbol in each lane, by two functions on arrays of the head's shape.

    Args:
      interval: symbols -> (start, freq), parts of [0, 2**precision); see `rans.push`.
      symbol_at: position (uint64) -> symbols, the ones whose intervals hold position.
      precision: integers in 0..31 that broadcast to the head.
    """

    def push(message, symbols):
        return rans.push(message, *interval(symbols), precision)

    def pop(message):
        position, finish = rans.pop(message, precision)
        symbols = symbol_at(position)
        return finish(*interval(symbols)), symbols

    return Codec(push, pop)


def uniform(precision: ArrayLike) -> Codec:
    """Codec for integers in [0, 2**precision), one in each lane, at precision bits each.

    Data are integer arrays that broadcast to the head; popped as int64. precision: integers in 0..31, likewise.
    """
    return non_uniform(lambda symbols: (symbols, 1), lambda position: position.astype(np.int64), precision)


def categorical(probabilities: ArrayLike, precision: int = 16) -> Codec:
    """Codec for integers in [0, n), one in each lane, by float probabilities.

    Args:
      probabilities: float array (..., n) summing to 1 over its last axis; the other axes broadcast to the head. Rounded
        to counts of 2**-precision, at least one for every symbol; the likeliest symbol takes up the difference.
      precision: int in 1..31.

    Raises:
      ValueError: for probabilities that are negative, do not sum to 1 or cannot be rounded so.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim < 1 or not np.all(probabilities >= 0) or np.any(np.abs(probabilities.sum(-1) - 1) > 1e-6):
        raise ValueError("probabilities must not be negative and must sum to 1 over the last axis")
    counts = np.maximum(np.rint(probabilities * (1 << precision)).astype(np.int64), 1)
    likeliest = np.argmax(counts, -1)[..., None]
    rest = (1 << precision) - counts.sum(-1, keepdims=True)
    np.put_along_axis(counts, likeliest, np.take_along_axis(counts, likeliest, -1) + rest, -1)
    if np.any(counts < 1):
        raise ValueError(f"{counts.shape[-1]} symbols do not fit a precision of {precision} bits; use a higher one")
    return from_table(np.concatenate([np.zeros_like(counts[..., :1]), np.cumsum(counts, -1)], -1), precision)


def from_table(cdf: ArrayLike, precision: int = 16, first: int = 0) -> Codec:
    """Codec for integers in [first, first + n), one in each lane, by an integer table.

    Args:
      cdf: integers (..., n + 1), strictly increasing from 0 to 2**precision over the last axis; the other axes
        broadcast to the head, so a single axis is one table for all lanes.
      precision: int in 1..31.
      first: the smallest symbol.

    Data are integer arrays that broadcast to the head; popped as int64.

    Raises:
      ValueError: for a cdf that is no such table, or by push for a symbol outside it.
    """
    cdf = np.asarray(cdf).astype(np.int64)
    if cdf.ndim < 1 or np.any(cdf[..., 0] != 0) or np.any(cdf[..., -1] != 1 << precision) or np.any(np.diff(cdf) < 1):
        raise ValueError(f"a cdf must increase strictly from 0 to 2**{precision} over its last axis")
    size = cdf.shape[-1] - 1

    def interval(symbols):
        place = np.asarray(symbols).astype(np.int64) - first
        if np.any(place < 0) or np.any(place >= size):
            raise ValueError(f"symbols must be in {first}..{first + size - 1} for this table")
        shape = np.broadcast_shapes(place.shape, cdf.shape[:-1])
        place, rows = np.broadcast_to(place, shape)[..., None], np.broadcast_to(cdf, (*shape, size + 1))
        start = np.take_along_axis(rows, place, -1)[..., 0]
        return start, np.take_along_axis(rows, place + 1, -1)[..., 0] - start

    def symbol_at(position):
        position = position.astype(np.int64)
        if cdf.ndim == 1:
            return np.searchsorted(cdf, position, "right") - 1 + first
        return np.sum(cdf <= position[..., None], -1) - 1 + first

    return non_uniform(interval, symbol_at, precision)


def serial(codecs: Iterable[Codec]) -> Codec:
    """Codec for a list of data, one for each of the codecs, which are given in decoding order."""
    codecs = list(codecs)
    return from_generator(lambda: (codec for codec in codecs))


def repeat(codec: Codec, n: int) -> Codec:
    """Codec for a list of n data of one kind."""
    return serial([codec] * n)


def from_generator(function: Callable[[], Generator[Codec, Any, None]]) -> Codec:
    """Codec for a list of data of which each may decide how the next is coded.

    Args:
      function: () -> generator, which yields codecs in decoding order and receives from each yield the datum that codec
        coded. Encoding runs it on the data to learn the codecs, then pushes in reverse. So it must depend on the values
        of the data alone; their type may differ, since push is handed what its caller has and pop what the codec makes.

    The whole of an L-level model is one such generator, z_L first:

        def levels():
            above = None
            for level in reversed(range(L)):
                above = yield codec_of(level, above)
    """

    def push(message, data):
        data = list(data)
        generator = function()
        codec, codecs = next(generator, None), []
        for datum in data:
            if codec is None:
                raise ValueError(f"got {len(data)} data, but the generator yields only {len(codecs)} codecs for them")
            codecs.append(codec)
            codec = _send(generator, datum)
        if codec is not None:
            generator.close()
            raise ValueError(f"got {len(data)} data, but the generator yields more codecs")
        for codec, datum in zip(reversed(codecs), reversed(data), strict=True):
            message = codec.push(message, datum)
        return message

    def pop(message):
        generator, data = function(), []
        codec = next(generator, None)
        while codec is not None:
            message, datum = codec.pop(message)
            data.append(datum)
            codec = _send(generator, datum)
        return message, data

    return Codec(push, pop)


def _send(generator, datum):
    try:
        return generator.send(datum)
    except StopIteration:
        return None


def substack(codec: Codec, view: Callable[[np.ndarray], np.ndarray]) -> Codec:
    """Codec that works on a part of the head.

    Args:
      codec: codec for heads of the part's shape.
      view: head -> part, made of indexing and reshaping only, for instance ``lambda head: head[:2]``. No lane twice.
    """

    def split(head):
        where = view(np.arange(head.size).reshape(head.shape))
        if np.unique(where).size != where.size:
            raise ValueError("the view of a substack must not name a lane twice")
        return head.ravel()[where], where

    def join(head, where, part):
        joined = head.ravel().copy()
        joined[where] = part
        return joined.reshape(head.shape)

    def push(message, data):
        part, where = split(message.head)
        part, tail = codec.push(rans.Message(part, message.tail), data)
        return rans.Message(join(message.head, where, part), tail)

    def pop(message):
        part, where = split(message.head)
        (part, tail), data = codec.pop(rans.Message(part, message.tail))
        return rans.Message(join(message.head, where, part), tail), data

    return Codec(push, pop)


def indexed(tables: Tables, indices: ArrayLike, *, kernels: bool = True) -> Codec:
    """Codec for an int32 array of which every element has its own table.

    Elements are numbered in C order and popped in that order; element i lives in lane i % lanes of the raveled head, so
    a last incomplete row in the first lanes. Without escapes these are the bits of Craystack's codecs, row by row.

    Args:
      tables: `tables.Tables`.
      indices: integers in 0..len(tables) - 1, any shape; the shape of the data.
      kernels: False works in plain NumPy, one element at a time, with the same result.

    Raises:
      ValueError: for an index outside the tables; by push for data of another shape or outside int32.
    """
    indices = checked_indices(tables, indices)
    flat = np.ascontiguousarray(indices).ravel()

    def push(message, symbols):
        symbols = checked_symbols(symbols)
        if symbols.shape != indices.shape:
            raise ValueError(f"symbols of shape {symbols.shape} do not match indices of shape {indices.shape}")
        symbols = np.ascontiguousarray(symbols).ravel()
        return _coder(kernels).push_symbols(message, tables, symbols, flat)

    def pop(message):
        message, symbols = _coder(kernels).pop_symbols(message, tables, flat)
        return message, symbols.reshape(indices.shape)

    return Codec(push, pop)


def _coder(use_kernels):
    """The module that does the work; the compiled one is only imported when it is needed."""
    return importlib.import_module("nlvc.coding.kernels" if use_kernels else "nlvc.coding.reference")

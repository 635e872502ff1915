"""Numba kernels of the indexed codec: whole arrays of symbols in one call, the words of `reference`.

Imported on first use only, because Numba takes the better part of a second to import. Element i belongs to lane
i % lanes; pushing walks backwards, popping forwards. Heads never leave [2**31, 2**63) whatever the words are, and every
read and write is checked against the end of its array, so damaged words end in a status, not in a crash.
"""

import math

import numba
import numpy as np
from numba import types

from nlvc.coding import rans
from nlvc.coding.tables import Tables

_OK, _FULL, _RAN_OUT, _NOT_INT32 = 0, 1, 2, 3
# Words that one symbol can spill: it adds at most 82 bits to a head of 63, of which 31 stay.
_MOST_WORDS = 4

# Signatures are spelled out, so that read-only and writable arrays share one compiled kernel.
_STATUS = types.UniTuple(types.int64, 2)
_HEADS, _WRITTEN_WORDS, _WRITTEN_SYMBOLS = types.uint64[::1], types.uint32[::1], types.int32[::1]
_UINT16, _INT32, _INT64, _WORDS = (
    types.Array(kind, 1, "C", readonly=True) for kind in (types.uint16, types.int32, types.int64, types.uint32)
)
_TABLES = (_INT32, _INT32, _INT32, _INT64, _INT32)


def _compiled(*signature):
    def compile_(function):
        options = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(*signature, cache=True, **options)(function)
        except RuntimeError:  # there is no folder to write the cache to: compile anew in each process
            return numba.njit(*signature, **options)(function)

    return compile_


@_compiled()
def _push_bits(head, out, position, value, width):
    if head >> np.uint64(63) - width:
        position -= 1
        out[position] = np.uint32(head & np.uint64(0xFFFFFFFF))
        head >>= np.uint64(32)
    return head << width | value, position


@_compiled()
def _pop_bits(head, words, position, width):
    value = head & ((np.uint64(1) << width) - np.uint64(1))
    head >>= width
    if head < np.uint64(1 << 31):
        if position >= words.size:
            return head, position + 1, value
        head = head << np.uint64(32) | np.uint64(words[position])
        position += 1
    return head, position, value


@_compiled()
def _push_escape(head, out, position, distance, above, order):
    one, sixteen = np.uint64(1), np.uint64(16)
    shifted = distance + (one << order)
    width = order
    while shifted >> width > one:
        width += one
    raw = shifted - (one << width)
    head, position = _push_bits(head, out, position, raw & np.uint64(0xFFFF), min(width, sixteen))
    if width > sixteen:
        head, position = _push_bits(head, out, position, raw >> sixteen, width - sixteen)
    if width < np.uint64(32):
        head, position = _push_bits(head, out, position, np.uint64(0), one)
    for _ in range(width - order):
        head, position = _push_bits(head, out, position, one, one)
    return _push_bits(head, out, position, above, one)


@_compiled()
def _pop_escape(head, words, position, order):
    one, sixteen = np.uint64(1), np.uint64(16)
    head, position, above = _pop_bits(head, words, position, one)
    width = order
    while width < np.uint64(32):
        head, position, more = _pop_bits(head, words, position, one)
        if more == np.uint64(0):
            break
        width += one
    high = np.uint64(0)
    if width > sixteen:
        head, position, high = _pop_bits(head, words, position, width - sixteen)
    head, position, low = _pop_bits(head, words, position, min(width, sixteen))
    shifted = (one << width) + (high << sixteen | low)
    return head, position, np.int64(shifted - (one << order)), above


@_compiled(_STATUS(_HEADS, _WRITTEN_WORDS, _INT32, _INT32, *_TABLES))
def _push_kernel(heads, out, symbols, indices, first, size, order, offset, cdf):
    """Pushes all symbols in reverse. Changes heads; fills out from its end.

    Returns (status, position): OK and where the words begin in out, or FULL with nothing of use.
    """
    lanes = heads.size
    position = out.size
    lane = (symbols.size - 1) % lanes
    for i in range(symbols.size - 1, -1, -1):
        if position < _MOST_WORDS:
            return _FULL, position
        head = heads[lane]
        k = indices[i]
        place = np.int64(symbols[i]) - np.int64(first[k])
        last = np.int64(size[k])
        if place < 0 or place >= last:
            above = place >= last
            distance = place - last if above else -place - 1
            head, position = _push_escape(
                head, out, position, np.uint64(distance), np.uint64(above), np.uint64(order[k])
            )
            place = last
        at = offset[k] + place
        start = np.uint64(cdf[at])
        freq = np.uint64(cdf[at + 1]) - start
        if head >= freq << np.uint64(47):
            position -= 1
            out[position] = np.uint32(head & np.uint64(0xFFFFFFFF))
            head >>= np.uint64(32)
        quotient = head // freq
        heads[lane] = (quotient << np.uint64(16)) + (head - quotient * freq) + start
        lane = lane - 1 if lane > 0 else lanes - 1
    return _OK, position


@_compiled(_STATUS(_HEADS, _WORDS, _WRITTEN_SYMBOLS, _INT32, *_TABLES, _INT64, _INT32, _UINT16))
def _pop_kernel(
    heads, words, symbols, indices, first, size, order, offset, cdf, bucket_offset, bucket_shift, bucket_place
):
    """Pops into all of symbols, forwards. Changes heads. The last three arguments are Tables.lookup.

    Returns (status, position): OK and how many words were read, or RAN_OUT or NOT_INT32.
    """
    lanes = heads.size
    position = 0
    lane = 0
    for i in range(symbols.size):
        head = heads[lane]
        k = indices[i]
        here = np.int64(head & np.uint64(0xFFFF))
        at = offset[k] + np.int64(bucket_place[bucket_offset[k] + (here >> np.int64(bucket_shift[k]))])
        # Ends inside the table, because its last entry is above every position.
        while np.int64(cdf[at + 1]) <= here:
            at += 1
        place = at - offset[k]
        start = np.uint64(cdf[at])
        freq = np.uint64(cdf[at + 1]) - start
        head = freq * (head >> np.uint64(16)) + (np.uint64(here) - start)
        if head < np.uint64(1 << 31):
            if position >= words.size:
                return _RAN_OUT, position
            head = head << np.uint64(32) | np.uint64(words[position])
            position += 1
        symbol = np.int64(first[k]) + place
        if place == size[k]:
            head, position, distance, above = _pop_escape(head, words, position, np.uint64(order[k]))
            if position > words.size:
                return _RAN_OUT, position
            symbol = np.int64(first[k]) + (size[k] + distance if above else -1 - distance)
            if symbol < -(1 << 31) or symbol >= 1 << 31:
                return _NOT_INT32, position
        symbols[i] = symbol
        heads[lane] = head
        lane = lane + 1 if lane + 1 < lanes else 0
    return _OK, position


def push_symbols(message: rans.Message, tables: Tables, symbols: np.ndarray, indices: np.ndarray) -> rans.Message:
    """As `reference.push_symbols`."""
    # Without escapes a symbol has at most 16 bits; with many, once more with more room.
    room = symbols.size // 2 + 2 * message.head.size + 16
    while True:
        head = message.head.ravel().copy()
        out = np.empty(room, np.uint32)
        status, position = _push_kernel(head, out, symbols, indices, *_arrays(tables))
        if status == _OK:
            break
        room *= 4
    tail = (out[position:].copy(), message.tail) if position < room else message.tail
    return rans.Message(head.reshape(message.head.shape), tail)


def pop_symbols(message: rans.Message, tables: Tables, indices: np.ndarray) -> tuple[rans.Message, np.ndarray]:
    """As `reference.pop_symbols`."""
    # Without escapes a symbol takes at most one word; with many, once more with all there are.
    for wanted in (indices.size, math.inf):
        words, rest = _gather(message.tail, wanted)
        head = message.head.ravel().copy()
        symbols = np.empty(indices.size, np.int32)
        status, position = _pop_kernel(head, words, symbols, indices, *_arrays(tables), *tables.lookup)
        if status != _RAN_OUT or not rest:
            break
    if status != _OK:
        raise rans.MessageError(rans.RAN_OUT if status == _RAN_OUT else rans.NOT_INT32)
    tail = (words[position:], rest) if position < words.size else rest
    return rans.Message(head.reshape(message.head.shape), tail), symbols


def _gather(tail, wanted):
    """At least `wanted` words from the top of a tail as one array, and the rest of the tail."""
    chunks, count = [], 0
    while tail and count < wanted:
        words, tail = tail
        chunks.append(words)
        count += words.size
    return (chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.uint32), *chunks])), tail


def _arrays(tables):
    return tables.first, tables.size, tables.order, tables.offset, tables.cdf

"""The indexed codec in plain NumPy, one element at a time: what `kernels` must reproduce, and the place to read it.

Each element is coded on one lane, as by `codecs.substack`: first its table, then, if that said escape, its distance.
"""

import numpy as np

from nlvc.coding import rans
from nlvc.coding.tables import ESCAPE_BITS, PRECISION, Tables


def push_symbols(message: rans.Message, tables: Tables, symbols: np.ndarray, indices: np.ndarray) -> rans.Message:
    """The message with all symbols pushed in reverse; symbols and indices are int32 arrays of one dimension."""
    head, tail = message.head.ravel().copy(), message.tail
    for i in reversed(range(symbols.size)):
        lane = slice(i % head.size, i % head.size + 1)
        head[lane], tail = _push(rans.Message(head[lane], tail), tables, int(symbols[i]), int(indices[i]))
    return rans.Message(head.reshape(message.head.shape), tail)


def pop_symbols(message: rans.Message, tables: Tables, indices: np.ndarray) -> tuple[rans.Message, np.ndarray]:
    """(message, int32 symbols), popped forwards. Raises rans.MessageError."""
    head, tail = message.head.ravel().copy(), message.tail
    symbols = np.empty(indices.size, np.int32)
    for i in range(indices.size):
        lane = slice(i % head.size, i % head.size + 1)
        (head[lane], tail), symbol = _pop(rans.Message(head[lane], tail), tables, int(indices[i]))
        if not -(1 << 31) <= symbol < 1 << 31:
            raise rans.MessageError(rans.NOT_INT32)
        symbols[i] = symbol
    return rans.Message(head.reshape(message.head.shape), tail), symbols


def _push(message, tables, symbol, index):
    cdf = tables.cdf[tables.offset[index] : tables.offset[index + 1]]
    size, order = int(tables.size[index]), int(tables.order[index])
    place = symbol - int(tables.first[index])
    if not 0 <= place < size:
        above = place >= size
        shifted = (place - size if above else -place - 1) + (1 << order)
        width = shifted.bit_length() - 1
        raw = shifted - (1 << width)
        message = rans.push(message, raw & 0xFFFF, 1, min(width, 16))
        if width > 16:
            message = rans.push(message, raw >> 16, 1, width - 16)
        if width < ESCAPE_BITS:
            message = rans.push(message, 0, 1, 1)
        for _ in range(width - order):
            message = rans.push(message, 1, 1, 1)
        message = rans.push(message, int(above), 1, 1)
        place = size
    return rans.push(message, cdf[place], cdf[place + 1] - cdf[place], PRECISION)


def _pop(message, tables, index):
    cdf = tables.cdf[tables.offset[index] : tables.offset[index + 1]]
    first, size, order = int(tables.first[index]), int(tables.size[index]), int(tables.order[index])
    position, finish = rans.pop(message, PRECISION)
    place = int(np.searchsorted(cdf, position[0], "right")) - 1
    message = finish(cdf[place], cdf[place + 1] - cdf[place])
    if place < size:
        return message, first + place
    message, above = _pop_bits(message, 1)
    width = order
    while width < ESCAPE_BITS:
        message, more = _pop_bits(message, 1)
        if not more:
            break
        width += 1
    message, high = _pop_bits(message, max(width - 16, 0))
    message, low = _pop_bits(message, min(width, 16))
    distance = (1 << width) + (high << 16 | low) - (1 << order)
    return message, first + (size + distance if above else -1 - distance)


def _pop_bits(message, width):
    value, finish = rans.pop(message, width)
    return finish(value, 1), int(value[0])

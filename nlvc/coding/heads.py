"""Folding of heads: lanes coded as if they were data, so that a message of many lanes is stored in few words.

The code for one head x in [2**31, 2**63) is Craystack's `Benford64`: five bits for the length of x, the first four bits
below its leading one by Benford's law (log2 x is nearly uniform), all others uniform.
"""

import numpy as np

from nlvc.coding import rans

# round(2**16 * log2(1 + k / 16)) for k = 0..16, written out so that no machine's logarithm can change the format.
_BENFORD = np.array(
    [0, 5732, 11136, 16248, 21098, 25711, 30109, 34312, 38336, 42196, 45904, 49472, 52911, 56229, 59434, 62534, 65536],
    np.uint64,
)
_ONE, _FOUR = np.uint64(1), np.uint64(4)
_SHIFTS = np.array([0, 16, 32, 48], np.uint64)


def resize(message: rans.Message, size: int) -> rans.Message:
    """A message of one-dimensional head with `size` lanes and the same content.

    Raises:
      rans.MessageError: if the message has too few words to grow that many heads.
    """
    head, tail = message
    sizes = _doublings(*sorted((size, head.size)))
    steps = list(zip(sizes[:-1], sizes[1:], strict=True))
    if size < head.size:
        for small, big in reversed(steps):
            count = big - small
            coded, tail = _push_head(rans.Message(head[:count], tail), head[small:])
            head = np.concatenate([coded, head[count:small]])
    else:
        for small, big in steps:
            count = big - small
            (rest, tail), grown = _pop_head(rans.Message(head[:count], tail))
            head = np.concatenate([rest, head[count:], grown])
    return rans.Message(head, tail)


def _doublings(small, big):
    sizes = [small]
    while sizes[-1] != big:
        sizes.append(min(2 * sizes[-1], big))
    return sizes


def _push_head(message, x):
    length = _floor_log2(x)
    mantissa = x - (_ONE << length)
    low_bits = length - _FOUR
    top = mantissa >> low_bits
    message = rans.push_unchecked(message, _BENFORD[top], _BENFORD[top + _ONE] - _BENFORD[top], np.uint64(16))
    for shift in _SHIFTS:
        width = _width(low_bits, shift)
        part = mantissa >> shift & ((_ONE << width) - _ONE)
        message = rans.push_unchecked(message, part, _ONE, width)
    return rans.push_unchecked(message, length - np.uint64(31), _ONE, np.uint64(5))


def _pop_head(message):
    length, finish = rans.pop_unchecked(message, np.uint64(5))
    message = finish(length, _ONE)
    length = length + np.uint64(31)
    low_bits = length - _FOUR
    x = _ONE << length
    for shift in reversed(_SHIFTS):
        part, finish = rans.pop_unchecked(message, _width(low_bits, shift))
        message = finish(part, _ONE)
        x |= part << shift
    position, finish = rans.pop_unchecked(message, np.uint64(16))
    top = np.searchsorted(_BENFORD, position, "right") - 1
    message = finish(_BENFORD[top], _BENFORD[top + 1] - _BENFORD[top])
    return message, x | top.astype(np.uint64) << low_bits


def _width(low_bits, shift):
    """How many of the low bits are in the piece of at most 16 that begins at shift."""
    return np.minimum(low_bits - np.minimum(low_bits, shift), np.uint64(16))


def _floor_log2(x):
    # By halving intervals of bits: a float logarithm rounds 2**60 - 1 up to 60.
    result = np.zeros_like(x)
    for shift in (32, 16, 8, 4, 2, 1):
        step = np.where(x >> np.uint64(shift) > 0, np.uint64(shift), np.uint64(0))
        x = x >> step
        result = result + step
    return result

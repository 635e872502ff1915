"""Messages: range asymmetric numeral systems (rANS) with Craystack's bits, in plain NumPy.

A message is a pair of

    head    uint64 array of any shape; one element is one *lane*, always in [2**31, 2**63)
    tail    stack of uint32 words that the heads have spilled

and works as a stack: what was pushed last is popped first. The convention is that of Craystack
(https://github.com/j-towns/craystack): same heads, same words, same flattened form, and even the same linked tail, so a
message made by one can be continued by the other. Theory: Duda 2009 (arXiv 0902.0271), section 3; vectorised over lanes
as in Giesen 2014 (arXiv 1402.3392), section 3.

A symbol is a part of the line [0, 2**precision), and costs precision - log2(freq) bits:

    0            start          start + freq        2**precision
    |--------------|==== symbol ====|---------------------|

Nothing here changes an array it was given: every function returns a new message and the old one stays valid.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nlvc.coding.checks import check_holds, checked_interval, checked_precision, checked_total

_LOWEST, _LIMIT = np.uint64(1 << 31), np.uint64(1 << 63)
_WORD = np.uint64(32)
RAN_OUT = "the message ran out of words: it is cut off, or was coded with another model"
NOT_INT32 = "a decoded symbol is outside int32: the message is damaged, or was coded with another model"


class MessageError(ValueError):
    """The words are not those of a message: they ran out, or stand for an impossible state."""


class Message(NamedTuple):
    """What has been coded so far.

    Attributes:
      head: uint64 array of any shape with at least one element, values in [2**31, 2**63).
      tail: () or (words, rest): a linked stack of uint32 arrays, in each the topmost word first.
    """

    head: np.ndarray
    tail: tuple


def empty_message(shape: int | tuple[int, ...]) -> Message:
    """A message without content: every head is 2**31, the tail is empty.

    Args:
      shape: lanes, as an int or a tuple of ints, at least one element in all.

    Raises:
      ValueError: for a shape without elements.
    """
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if not shape or any(side < 1 for side in shape):
        raise ValueError(f"a message needs a head with at least one lane, got shape {shape}; pass a positive int")
    return Message(np.full(shape, _LOWEST, np.uint64), ())


def push(message: Message, start: ArrayLike, freq: ArrayLike, precision: ArrayLike) -> Message:
    """Codes one symbol in every lane.

    Args:
      message: the message to extend.
      start, freq: integers that broadcast to the head: 0 <= start, 1 <= freq, start + freq <= 2**precision.
      precision: integers in 0..31 that broadcast to the head.

    Returns:
      The longer message.

    Raises:
      ValueError: for an interval outside the line, a precision outside 0..31 or shapes that do not broadcast.
    """
    precision = checked_precision(precision, message.head.shape)
    start, freq = checked_interval(start, freq, np.uint64(1) << precision, message.head.shape)
    return push_unchecked(message, start, freq, precision)


def push_unchecked(message: Message, start: np.ndarray, freq: np.ndarray, precision: np.ndarray) -> Message:
    """`push` for arguments known to be right, all uint64: for the inside of this wing."""
    head, tail = message
    head, tail = _spill(head, tail, head >= ((_LOWEST >> precision) << _WORD) * freq)
    quotient, remainder = np.divmod(head, freq)
    return Message((quotient << precision) + remainder + start, tail)


def peek(message: Message, precision: ArrayLike) -> np.ndarray:
    """The position in [0, 2**precision) of the next symbol of every lane: uint64, of the head's shape."""
    precision = checked_precision(precision, message.head.shape)
    return message.head & ((np.uint64(1) << precision) - np.uint64(1))


def pop(message: Message, precision: ArrayLike) -> tuple[np.ndarray, Callable[..., Message]]:
    """Begins to decode one symbol in every lane.

    Args:
      message: the message to read.
      precision: integers in 0..31 that broadcast to the head, as given to `push`.

    Returns:
      (position, finish): position is uint64 of the head's shape, in [0, 2**precision), and lies in the interval of the
      symbol that was pushed last; finish(start, freq) takes that interval and returns the rest of the message.

    Raises:
      ValueError: for a precision outside 0..31; by finish for an interval that does not hold position.
      MessageError: by finish if the words run out.
    """
    precision = checked_precision(precision, message.head.shape)
    position, finish_unchecked = pop_unchecked(message, precision)

    def finish(start, freq):
        start, freq = checked_interval(start, freq, np.uint64(1) << precision, message.head.shape)
        check_holds(position, start, freq)
        return finish_unchecked(start, freq)

    return position, finish


def pop_unchecked(message: Message, precision: np.ndarray) -> tuple[np.ndarray, Callable[..., Message]]:
    """`pop` for arguments known to be right, all uint64: for the inside of this wing."""
    head, tail = message
    position = head & ((np.uint64(1) << precision) - np.uint64(1))

    def finish(start, freq):
        return Message(*_refill(freq * (head >> precision) + (position - start), tail))

    return position, finish


def push_with_finer_precision(message: Message, start: ArrayLike, freq: ArrayLike, total: ArrayLike) -> Message:
    """`push` for intervals on a line of any length [0, total), not only a power of two.

    Args:
      message: the message to extend.
      start, freq: integers that broadcast to the head: 0 <= start, 1 <= freq, start + freq <= total.
      total: integers in 1..2**31 that broadcast to the head. The cost is log2(total / freq) bits.

    Raises:
      ValueError: for an interval outside the line, a total outside 1..2**31 or shapes that do not broadcast.
      MessageError: if the words run out (never for a message that was made by pushes or by `unflatten`).
    """
    head, tail = message
    total = checked_total(total, head.shape)
    start, freq = checked_interval(start, freq, total, head.shape)
    head, tail = _spill(head, tail, head >= ((_LOWEST // total) << _WORD) * freq)
    quotient, remainder = np.divmod(head, freq)
    return Message(*_refill(quotient * total + remainder + start, tail))


def pop_with_finer_precision(message: Message, total: ArrayLike) -> tuple[np.ndarray, Callable[..., Message]]:
    """`pop` for intervals on a line of any length [0, total); undoes `push_with_finer_precision`.

    Returns and raises as `pop`, with position in [0, total).
    """
    total = checked_total(total, message.head.shape)
    head, tail = _spill(*message, message.head >= total * ((_LOWEST // total) << _WORD))
    quotient, position = np.divmod(head, total)

    def finish(start, freq):
        start, freq = checked_interval(start, freq, total, head.shape)
        check_holds(position, start, freq)
        return Message(*_refill(freq * quotient + (position - start), tail))

    return position, finish


def flatten(message: Message, *, fold: bool = True) -> np.ndarray:
    """The message as one array of words, ready to be stored.

    Args:
      message: any message.
      fold: True codes all heads but one into the message itself, about 35 bits for each lane (craystack.flatten);
        False writes 64 bits for each lane (craystack.rans.flatten).

    Returns:
      uint32 array: the high words of the heads, their low words, then the tail from its top.
    """
    head, tail = reshape_head(message, (1,)) if fold else message
    head = head.ravel()
    return np.concatenate([(head >> _WORD).astype(np.uint32), head.astype(np.uint32), *_chunks(tail)])


def unflatten(words: np.ndarray, shape: int | tuple[int, ...], *, fold: bool = True) -> Message:
    """Undoes `flatten`.

    Args:
      words: uint32 array of one dimension.
      shape: shape of the head, as an int or a tuple of ints.
      fold: as it was given to `flatten`.

    Raises:
      ValueError: for words of another kind or a shape without elements.
      MessageError: for words that no message flattens to.
    """
    words = np.array(words)
    if words.ndim != 1 or (words.dtype != np.uint32 and words.size):
        raise ValueError(f"words must be a uint32 array of one dimension, got {words.dtype} of shape {words.shape}")
    shape = empty_message(shape).head.shape
    size = 1 if fold else math.prod(shape)
    if words.size < 2 * size:
        raise MessageError(f"the message is cut off, {words.size} words do not hold {size} heads: is the file whole?")
    head = words[:size].astype(np.uint64) << _WORD | words[size : 2 * size].astype(np.uint64)
    if np.any(head < _LOWEST) or np.any(head >= _LIMIT):
        raise MessageError("these words are not a message: a head is outside [2**31, 2**63); is the file damaged?")
    tail = (words[2 * size :], ()) if words.size > 2 * size else ()
    message = Message(head, tail)
    return reshape_head(message, shape) if fold else Message(head.reshape(shape), tail)


def to_bytes(message: Message) -> bytes:
    """`flatten` as little-endian bytes, four for each word."""
    return flatten(message).astype("<u4").tobytes()


def from_bytes(data: bytes, shape: int | tuple[int, ...]) -> Message:
    """Undoes `to_bytes`. Raises MessageError as `unflatten`, and for a length that is no multiple of four."""
    if len(data) % 4:
        raise MessageError(f"the message is cut off: {len(data)} bytes are not whole words; is the file complete?")
    return unflatten(np.frombuffer(data, "<u4").astype(np.uint32), shape)


def bits(message: Message) -> float:
    """Information in the message, in bits: a float that grows by precision - log2(freq) with each push.

    It is 0.0 for an empty message and for no other: so whoever has decoded a file knows whether that was all of it. The
    flattened message is longer, by 32 to 64 bits and about 36 for
    each lane after the first.
    """
    head, tail = message
    return float(np.sum(np.log2(head.astype(np.float64)) - 31)) + 32.0 * sum(len(words) for words in _chunks(tail))


def reshape_head(message: Message, shape: int | tuple[int, ...]) -> Message:
    """The same content with another number of lanes.

    Lanes that go are coded into the message, half of them at a time; lanes that come are decoded from it
    (Craystack's reshape_head, same bits).

    Args:
      message: any message.
      shape: the new shape of the head, as an int or a tuple of ints.

    Raises:
      ValueError: for a shape without elements.
      MessageError: if the message has too few words to grow that many heads.
    """
    shape = empty_message(shape).head.shape
    if message.head.shape == shape:
        return message
    from nlvc.coding import heads

    head, tail = heads.resize(Message(message.head.ravel(), message.tail), math.prod(shape))
    return Message(head.reshape(shape), tail)


def take_words(tail: tuple, count: int) -> tuple[np.ndarray, tuple]:
    """Splits a tail: (uint32 array of exactly count words from the top, the rest of the tail).

    Raises:
      MessageError: if the tail holds fewer words.
    """
    taken = []
    while count > 0:
        if not tail:
            raise MessageError(RAN_OUT)
        words, tail = tail
        taken.append(words[:count])
        if len(words) > count:
            tail = (words[count:], tail)
        count -= len(taken[-1])
    return (taken[0] if len(taken) == 1 else np.concatenate([np.empty(0, np.uint32), *taken])), tail


def _chunks(tail):
    while tail:
        words, tail = tail
        yield words


def _spill(head, tail, full):
    if not np.any(full):
        return head, tail
    return np.where(full, head >> _WORD, head), (head[full].astype(np.uint32), tail)


def _refill(head, tail):
    low = head < _LOWEST
    if np.any(low):
        words, tail = take_words(tail, int(np.count_nonzero(low)))
        head[low] = head[low] << _WORD | words
    return head, tail

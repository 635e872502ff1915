"""What a caller may give to `rans`: each check returns uint64 arrays of the head's shape, or raises ValueError."""

import numpy as np
from numpy.typing import ArrayLike

_MAX_PRECISION = 31
_MAX_TOTAL = 1 << 31


def checked_precision(precision: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Integers in 0..31."""
    precision = _broadcast(precision, shape, "precision")
    if np.any(precision > _MAX_PRECISION):
        raise ValueError(f"precision must be in 0..{_MAX_PRECISION}, got {precision.max()}")
    return precision


def checked_total(total: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Integers in 1..2**31."""
    total = _broadcast(total, shape, "total")
    if np.any(total < 1) or np.any(total > _MAX_TOTAL):
        raise ValueError(f"total must be in 1..2**31, got {total.min()}..{total.max()}")
    return total


def checked_interval(
    start: ArrayLike, freq: ArrayLike, total: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(start, freq): 0 <= start, 1 <= freq and start + freq <= total."""
    start, freq = _broadcast(start, shape, "start"), _broadcast(freq, shape, "freq")
    # Three comparisons, because start + freq may wrap.
    if np.any(freq < 1) or np.any(freq > total) or np.any(start > total - np.minimum(freq, total)):
        raise ValueError("the interval [start, start + freq) must be non-empty and inside the coder's line")
    return start, freq


def check_holds(position: np.ndarray, start: np.ndarray, freq: np.ndarray) -> None:
    """Raises ValueError unless start <= position < start + freq."""
    if np.any(position < start) or np.any(position - start >= freq):
        raise ValueError("finish wants the interval of the popped symbol, and this one does not hold its position")


def _broadcast(values, shape, name):
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {values.dtype}")
    if values.dtype.kind == "i" and np.any(values < 0):
        raise ValueError(f"{name} must not be negative, got {values.min()}")
    try:
        return np.broadcast_to(values, shape).astype(np.uint64)
    except ValueError:
        raise ValueError(f"{name} of shape {values.shape} does not fit a head of shape {shape}") from None

"""Integer CDF tables: what the coder knows of a distribution of integers.

Each table divides the line [0, 2**16) among the symbols of its support and, last, an escape symbol:

    0                                                                         2**16
    |  first  | first + 1 |     ...     |  first + size - 1  |  escape  |

A symbol outside the support costs the escape, one bit for its side and an Exp-Golomb code of its distance from the
support, so every int32 can be coded with every table. Bins that round to less than one count are left to the escape;
the order of its Exp-Golomb code is fitted to what lies there. Symbols are offsets from the mean, as in Minnen et al.
2018 (arXiv 1809.02736), section 3; the 64 log-spaced scales are those of Ballé et al. 2018 (arXiv 1802.01436).
"""

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

PRECISION = 16
TOTAL = 1 << PRECISION
MAX_SIZE = 1 << 14
ESCAPE_BITS = 32
FAMILIES = ("gaussian", "logistic", "laplace")
SCALES = np.geomspace(0.11, 256.0, 64)
SCALES.flags.writeable = False

# Half-width of the tabulated masses in scales, and in bins at least; the mass beyond is under 1e-9.
_REACH = {"gaussian": 7.0, "logistic": 24.0, "laplace": 24.0}
_SMALLEST_REACH = 4
_FEWEST_BUCKETS, _MOST_BUCKETS = 64, 4096


@dataclass(frozen=True, eq=False)
class Tables:
    """K integer CDF tables of precision 16.

    These four arrays are all of it and may be stored as they are; they are checked when the object is made.

    Attributes:
      first: int32 (K,), the smallest symbol of each support.
      size: int32 (K,), symbols in the support without the escape, in 0..16384.
      order: int32 (K,), order of the escape's Exp-Golomb code, in 0..31.
      cdf: int32 (sum(size + 2),), for each table 0, ..., 2**16, strictly increasing.

    Raises:
      ValueError: for arrays that are not such tables.
    """

    first: np.ndarray
    size: np.ndarray
    order: np.ndarray
    cdf: np.ndarray

    def __post_init__(self):
        for name in ("first", "size", "order", "cdf"):
            values = np.asarray(getattr(self, name))
            if values.ndim != 1 or values.dtype.kind not in "iu":
                raise ValueError(f"tables: {name} must be integers in one dimension")
            values = values.astype(np.int32)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if not len(self.first) == len(self.size) == len(self.order) > 0:
            raise ValueError("tables: first, size and order must have one and the same length of at least 1")
        if np.any(self.size < 0) or np.any(self.size > MAX_SIZE):
            raise ValueError(f"tables: size must be in 0..{MAX_SIZE}")
        if np.any(self.order < 0) or np.any(self.order >= ESCAPE_BITS):
            raise ValueError(f"tables: order must be in 0..{ESCAPE_BITS - 1}")
        if np.any(self.first.astype(np.int64) + self.size > 1 << 31):
            raise ValueError("tables: the support must end inside int32")
        if len(self.cdf) != np.sum(self.size.astype(np.int64) + 2):
            raise ValueError("tables: cdf must hold size + 2 values for each table")
        starts, ends = self.offset[:-1], self.offset[1:] - 1
        steps = np.diff(self.cdf.astype(np.int64))
        steps[ends[:-1]] = 1
        if np.any(self.cdf[starts] != 0) or np.any(self.cdf[ends] != TOTAL) or np.any(steps < 1):
            raise ValueError(f"tables: each cdf must increase strictly from 0 to {TOTAL}")

    def __len__(self) -> int:
        return len(self.first)

    @functools.cached_property
    def offset(self) -> np.ndarray:
        """int64 (K + 1,): where each table begins in cdf, and the length of cdf."""
        return np.concatenate([[0], np.cumsum(self.size.astype(np.int64) + 2)])

    @functools.cached_property
    def lookup(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the decoder begins to look for a position: (offset int64 (K,), shift int32 (K,), place uint16).

        Table k divides the line into buckets of 2**shift[k] positions, about as many as it has symbols (64 to 4096, few
        enough for the processor's caches); place[offset[k] + bucket] is the first symbol that reaches into one.
        """
        buckets = np.ceil(np.log2(np.clip(self.size + 1, _FEWEST_BUCKETS, _MOST_BUCKETS))).astype(np.int32)
        shift = PRECISION - buckets
        rows = []
        for k, bits in enumerate(buckets):
            cdf = self.cdf[self.offset[k] : self.offset[k + 1]]
            rows.append(np.searchsorted(cdf, np.arange(1 << bits) << shift[k], "right") - 1)
        offset = np.concatenate([[0], np.cumsum(1 << buckets[:-1].astype(np.int64))])
        return offset, shift, np.concatenate(rows).astype(np.uint16)

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of the content: two machines that agree on it code with the same tables."""
        crc = 0
        for values in (self.first, self.size, self.order, self.cdf):
            crc = zlib.crc32(values.astype("<i4").tobytes(), crc)
        return crc

    def counts(self, index: int) -> np.ndarray:
        """int32 (size + 1,): counts out of 2**16 of one table's symbols, the escape last."""
        return np.diff(self.cdf[self.offset[index] : self.offset[index + 1]])


@functools.cache
def scale_tables(family: str) -> Tables:
    """Tables of a zero-mean density integrated over unit bins, one for each of SCALES.

    Args:
      family: "gaussian" (scale is sigma), "logistic" (s) or "laplace" (b).

    Returns:
      Tables of length 64; the same object for every call.

    Raises:
      ValueError: for another family.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; use one of {', '.join(FAMILIES)}")
    masses = []
    for scale in SCALES:
        reach = max(_SMALLEST_REACH, int(np.ceil(_REACH[family] * scale)))
        half = _bin_masses(family, scale, reach)
        # Mirrored, so that rounding cannot make the two sides differ.
        masses.append((-reach, np.concatenate([half[:0:-1], half])))
    return tables_from_masses(masses)


def tables_from_masses(masses: Sequence[tuple[int, ArrayLike]]) -> Tables:
    """Tables for arbitrary distributions of integers, for instance a learned p(z_L).

    Args:
      masses: for each table (first_symbol, float64 array of the masses of first_symbol, first_symbol + 1, ...). Masses
        are not negative and sum to at most 1 (up to rounding); the rest belongs to the escape. Bins at either end that
        round to less than one count are left to the escape too.

    Raises:
      ValueError: for masses that are negative, not finite, empty or sum to more than 1, or symbols outside int32.
    """
    rows = [_table(int(first), np.asarray(values, np.float64)) for first, values in masses]
    if not rows:
        raise ValueError("tables need the masses of at least one distribution")
    first, size, order, cdf = zip(*rows, strict=True)
    return Tables(np.array(first), np.array(size), np.array(order), np.concatenate(cdf))


def ideal_bits(tables: Tables, symbols: ArrayLike, indices: ArrayLike) -> np.ndarray:
    """Bits that an ideal coder spends on each symbol by the integer tables, escapes included.

    Args:
      tables: Tables.
      symbols: integers in int32, any shape.
      indices: integers in 0..K-1 that broadcast against symbols.

    Returns:
      float64 array of the broadcast shape.

    Raises:
      ValueError: for an index outside the tables or a symbol outside int32.
    """
    symbols, indices = np.broadcast_arrays(checked_symbols(symbols), checked_indices(tables, indices))
    place = symbols.astype(np.int64) - tables.first[indices]
    size = tables.size[indices].astype(np.int64)
    outside = (place < 0) | (place >= size)
    at = tables.offset[indices] + np.where(outside, size, place)
    result = PRECISION - np.log2(tables.cdf[at + 1] - tables.cdf[at])
    distance = np.where(place < 0, -place - 1, place - size)[outside]
    result[outside] += 1 + exp_golomb_bits(distance, tables.order[indices][outside])
    return result


def exp_golomb_bits(value: ArrayLike, order: ArrayLike) -> np.ndarray:
    """Length in bits of the escape's code of value, integers in 0..2**32 - 1, by order in 0..31; int64.

    A value is sent as value + 2**order: how many bits that has above its last order + 1, in unary and ended by a zero
    unless it is the greatest number possible, then all of them below the leading one.
    """
    order = np.asarray(order, np.int64)
    shifted = np.asarray(value, np.int64) + (np.int64(1) << order)
    # frexp is exact here: below 2**53 float64 holds every integer.
    extra = np.frexp(shifted.astype(np.float64))[1].astype(np.int64) - 1 - order
    return extra + (extra < ESCAPE_BITS - order) + order + extra


def checked_symbols(symbols: ArrayLike) -> np.ndarray:
    """symbols as int32; ValueError if they are not integers or do not fit."""
    symbols = np.asarray(symbols)
    if symbols.dtype == np.int32:
        return symbols
    if symbols.dtype.kind not in "iu" and symbols.size:
        raise ValueError(f"symbols must be integers, got {symbols.dtype}")
    if symbols.size and (symbols.min() < -(1 << 31) or symbols.max() >= 1 << 31):
        raise ValueError(f"symbols must fit int32, got {symbols.min()}..{symbols.max()}")
    return symbols.astype(np.int32)


def checked_indices(tables: Tables, indices: ArrayLike) -> np.ndarray:
    """indices as int32; ValueError if they are not integers in 0..len(tables) - 1."""
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu" and indices.size:
        raise ValueError(f"table indices must be integers, got {indices.dtype}")
    if indices.size and (indices.min() < 0 or indices.max() >= len(tables)):
        raise ValueError(f"table indices must be in 0..{len(tables) - 1}, got {indices.min()}..{indices.max()}")
    return indices.astype(np.int32, copy=False)


def _bin_masses(family, scale, reach):
    """Masses of the unit bins at 0..reach, differences taken in the tail, where they are small."""
    from scipy.special import expit, ndtr

    edges = (np.arange(reach + 2) - 0.5) / scale
    if family == "gaussian":
        survival = ndtr(-edges)
    elif family == "logistic":
        survival = expit(-edges)
    else:
        survival = 0.5 * np.exp(-np.maximum(edges, 0.0))
    masses = survival[:-1] - survival[1:]
    masses[0] = 2 * (0.5 - survival[1])
    return masses


def _table(first, masses):
    if masses.ndim != 1 or not masses.size or not np.all(np.isfinite(masses)) or np.any(masses < 0):
        raise ValueError("masses must be a non-empty array of finite numbers >= 0 in one dimension")
    if masses.sum() > 1 + 1e-6:
        raise ValueError(f"masses must sum to at most 1, got {masses.sum()}; divide by their sum")
    if first < -(1 << 31) or first + masses.size > 1 << 31:
        raise ValueError("the symbols of a table must fit int32")
    low, high = _support(masses)
    inside = masses[low:high]
    escape = max(0.0, 1.0 - inside.sum())
    counts = _share(np.append(inside, escape))
    left, right = masses[:low][::-1], masses[high:]
    cdf = np.concatenate([[0], np.cumsum(counts)])
    return first + low, high - low, _escape_order(left, right), cdf


def _support(masses):
    """The range [low, high) from the first to the last bin that rounds to a count.

    It always has the likeliest bin and its neighbours: where a model is too sure of itself, one off is the usual miss.
    """
    mode = int(np.argmax(masses))
    threshold = 0.5 / TOTAL
    while True:
        likely = np.flatnonzero(masses >= threshold)
        low = min([mode, *likely[:1]])
        high = max([mode, *likely[-1:]]) + 1
        low, high = min(low, max(mode - 1, 0)), max(high, min(mode + 2, masses.size))
        if high - low <= MAX_SIZE:
            return int(low), int(high)
        threshold *= 2


def _share(masses):
    """Counts of at least one each that sum to TOTAL, by largest remainders."""
    spare = TOTAL - masses.size
    weights = np.maximum(masses / masses.sum() * TOTAL - 1, 0.0)
    shares = weights * (spare / weights.sum())
    counts = np.floor(shares).astype(np.int64)
    # Shares are rounded before they are ordered, so that equal masses tie and the lower symbol wins everywhere.
    order = np.argsort(-np.round(shares - counts, 6), kind="stable")
    counts[order[: spare - counts.sum()]] += 1
    return counts + 1


def _escape_order(left, right):
    """The order in 0..16 of the shortest Exp-Golomb code for distances with these masses."""
    length = max(left.size, right.size)
    if not length:
        return 0
    masses = np.zeros(length)
    masses[: left.size] += left
    masses[: right.size] += right
    distance = np.arange(length)
    costs = [float(masses @ exp_golomb_bits(distance, order)) for order in range(17)]
    return int(np.argmin(costs))

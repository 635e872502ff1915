"""Exact layers: integers in, integers out, the same bits on every machine.

A sum of integers is the same in any order, so threads, batches, tiles and devices do not matter. Between two layers lie
int8 activations; a layer is

    int8 --convolve--> int32 accumulators --requantise--> int8 --lookup (a table of 256)--> int8

No sum overflows: `Scale` and `check_accumulators` hold every |accumulator| below 2^30, so that one more addition, of
half a unit before a shift, still fits in int32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nlvc.models.layers import convolve_inside

ACCUMULATOR_LIMIT = 1 << 30
_MULTIPLIER_BITS = 15


class Scale(NamedTuple):
    """Multiplication by positive numbers, one a channel, in int32: arrays (C,) of the least types that hold them.

    y = (t * multiplier + 2^(after-1)) >> after,  t = (clip(x, -limit, limit) + 2^(before-1)) >> before

    Both shifts round halves up. |t| <= 2^15 and multiplier < 2^15, so the product is below 2^30.
    """

    limit: np.ndarray
    before: np.ndarray
    multiplier: np.ndarray
    after: np.ndarray


def scale(ratio: np.ndarray, reach: float) -> Scale:
    """The Scale nearest to ratios (C,) in (0, 2^14), for outputs up to +-reach; larger ones are cut a little beyond."""
    ratio = np.maximum(np.asarray(ratio, np.float64), 2.0**-44)
    if np.any(ratio >= 2.0 ** (_MULTIPLIER_BITS - 1)):
        raise ValueError(f"scale: ratios must be below 2^{_MULTIPLIER_BITS - 1}, got {ratio.max():g}")
    limit = np.clip(np.ceil((reach + 1) / ratio), 1, ACCUMULATOR_LIMIT - 1)
    before = np.maximum(np.floor(np.log2(limit)) + 1 - _MULTIPLIER_BITS, 0)
    after = np.clip(_MULTIPLIER_BITS - 1 - np.floor(np.log2(ratio * 2**before)), 0, 30)
    multiplier = np.minimum(np.rint(ratio * 2.0 ** (before + after)), 2**_MULTIPLIER_BITS - 1)
    return Scale(limit.astype(np.int32), before.astype(np.int8), multiplier.astype(np.int16), after.astype(np.int8))


def requantise(x: Array, by: Scale) -> Array:
    """int32 (..., C) times the ratios of a Scale, as its docstring says; int32."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    limit, before, multiplier, after = (jnp.asarray(v).astype(jnp.int32).reshape(shape) for v in by)
    x = jnp.clip(x, -limit, limit)
    x = lax.shift_right_arithmetic(x + half(before), jnp.broadcast_to(before, x.shape))
    x = x * multiplier + half(after)
    return lax.shift_right_arithmetic(x, jnp.broadcast_to(after, x.shape))


def half(shift: Array) -> Array:
    """2^(shift-1), or 0 for a shift of 0."""
    return (1 << shift) >> 1


def to_int8(x: Array) -> Array:
    """int32, cut to int8."""
    return jnp.clip(x, -128, 127).astype(jnp.int8)


def lookup(x: Array, table: Array) -> Array:
    """table[x + 128]: x int8 of any shape, table (256,)."""
    return jnp.take(jnp.asarray(table), x.astype(jnp.int32) + 128, mode="clip")


def convolve(x: Array, kernel: np.ndarray, bias: np.ndarray) -> Array:
    """int8 (B, H, W, C) * int8 (k, k, C, C') + int32 (C',) -> int32 (B, H-k+1, W-k+1, C').

    CPUs convolve integers; GPUs refuse to, but multiply matrices of them.
    """
    as_dot = jax.default_backend() != "cpu"
    sums = convolve_inside(x, jnp.asarray(kernel), as_dot=as_dot, dtype=jnp.int32)
    return sums + jnp.asarray(bias).reshape(1, 1, 1, -1)


def dot(x: Array, high: np.ndarray, low: np.ndarray) -> Array:
    """int32 (B, h, w, C), |x| < 2^15 - 128, times int16 weights in two int8 limbs (C, C'); int32.

    x = 256 x_high + x_low, weight = 256 high + low; the four products are int8 dots, and their sum is exact as long as
    the whole product fits (`check_accumulators`): two's complement forgives what overflows on the way.
    """
    x_high = (x + 128) >> 8
    x_low = (x - (x_high << 8)).astype(jnp.int8)
    x_high = x_high.astype(jnp.int8)
    product = lambda a, b: lax.dot_general(  # noqa: E731
        a, jnp.asarray(b), (((3,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    middle = product(x_high, low) + product(x_low, high)
    return (product(x_high, high) << 16) + (middle << 8) + product(x_low, low)


def dot_squares(x: Array, weights: np.ndarray) -> Array:
    """int32 (B, h, w, C), |x| <= 127: the dot of its squares with int8 weights (C, C'), none negative; int32."""
    squares = x * x
    product = lambda a: lax.dot_general(  # noqa: E731
        a.astype(jnp.int8), jnp.asarray(weights), (((3,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    return (product(squares >> 7) << 7) + product(squares & 127)


def limbs(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers in (-2^15 + 128, 2^15 - 128) as (high, low) int8 with 256 high + low."""
    high = (weights + 128) >> 8
    return high.astype(np.int8), (weights - (high << 8)).astype(np.int8)


def check_accumulators(name: str, weights: np.ndarray, largest: np.ndarray | int, bias: np.ndarray | int = 0) -> None:
    """Raises ValueError unless sum |weight| * largest |input| + |bias| < 2^30 for every output (the last axis)."""
    weights = np.abs(np.asarray(weights, np.int64)).reshape(-1, np.shape(weights)[-1])
    largest = np.asarray(largest, np.int64)
    if largest.ndim:
        largest = np.tile(largest, len(weights) // largest.size)[:, None]
    worst = np.max((weights * largest).sum(axis=0) + np.abs(np.asarray(bias, np.int64)))
    if worst >= ACCUMULATOR_LIMIT:
        raise ValueError(f"{name}: its sums may reach {worst}, more than int32 is sure to hold; train it anew")

"""One model for all rates: numbers that depend on lambda, piecewise linear in its logarithm.

Such a parameter has a row for each of LAMBDAS, the knots; a model of one rate has a single row without that axis.
What depends on lambda is little: the bins of z_1, the ordinary sizes of the latents, and shifts inside the networks
that see pixels (Cui et al. 2021, gain units; Perez et al. 2018, FiLM without its scales).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc.config import LAMBDAS

KNOTS = len(LAMBDAS)
QUALITIES = 101
"""Rates that a frozen model has: qualities 0 to 100, evenly in the logarithm of lambda."""
_LOG_KNOTS = np.log(np.array(LAMBDAS))


def lmbda_of(quality: float) -> float:
    """Quality in 0..100 -> lambda, from the lowest knot to the highest."""
    return LAMBDAS[0] * (LAMBDAS[-1] / LAMBDAS[0]) ** (quality / (QUALITIES - 1))


def quality_of(lmbda: float) -> int:
    """The nearest quality in 0..100."""
    place = math.log(lmbda / LAMBDAS[0]) / math.log(LAMBDAS[-1] / LAMBDAS[0])
    return round((QUALITIES - 1) * min(max(place, 0.0), 1.0))


def hats(lmbda: Array) -> Array:
    """Lambdas (B,) -> weights (B, KNOTS) of the knots: at most two are not 0, their sum is 1."""
    place = jnp.interp(jnp.log(lmbda), jnp.asarray(_LOG_KNOTS, jnp.float32), jnp.arange(KNOTS, dtype=jnp.float32))
    return jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(KNOTS, dtype=jnp.float32)[None]), 0)


def at(values: Array, weights: Array | None) -> Array:
    """A parameter as a row to go with latents: (C,) -> (1, 1, 1, C), or (KNOTS, C) -> (B, 1, 1, C) by `hats`."""
    rows = values[None] if weights is None else jnp.dot(weights, values)
    return rows[:, None, None, :]

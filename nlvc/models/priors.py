"""Distributions of a latent, and the mass of its unit bins.

Every prior here has the same verbs, so any of them serves at any level:

    cdf(z)  log_cdf(z)  log_survival(z)      P(Z <= z), and the natural logs of it and of P(Z > z)
    log_mass(z)  mass(z)  bits(z)            the unit bin centred at z: ln m, m, -log2 m, with m = P(|Z - z| <= 1/2)
    coded_bits(z)                            -log2 m, or what the coder's escape code costs, whichever is less
    quantile(p)                              the z with cdf(z) = p

                      ___
                   .-'###`-.
                _.'|#######|`._            mass(z) = P(Z > z - 1/2) - P(Z > z + 1/2)
        __..--''   |#######|   ``--..__
    ---------------|---|---|--------------> z
               z-1/2   z  z+1/2

`log_mass` is the log-density of Z + U(-1/2, 1/2), which is what additive noise makes of a latent (Ballé et al. 2018,
appendix 6.2), and at a bin's centre the log-probability of that bin. All logs are natural; only `bits` is in bits.

The difference of two nearly equal probabilities has no correct digits in float32, so it is never formed: by symmetry
both edges are taken on the upper side, where probabilities are small, and the logistic and the Laplace masses are
closed forms of the width of the bin. `log_mass` and its gradients are finite in float32 for |z - mean| <= 1e4 and
scales in [1e-3, 1e4]; `cdf` and `mass` go to exact 0 or 1 where float32 has nothing nearer.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import erfc, logit, ndtr, ndtri

Array = jax.Array

ESCAPE_MASS = 2.0**-16
"""Probability that the coder keeps for what its tables leave out: one count."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class Verbs:
    """What follows from `log_cdf`, `log_survival` and `log_mass` alone."""

    def mass(self, z: Array) -> Array:
        """Mass of the unit bin centred at z, in [0, 1]; of z's shape."""
        return jnp.exp(self.log_mass(z))

    def bits(self, z: Array) -> Array:
        """Information content -log2(mass(z)) of the unit bin centred at z, in bits, >= 0; of z's shape."""
        return self.log_mass(z) * (-1.0 / math.log(2.0))

    def coded_bits(self, z: Array) -> Array:
        """`bits`, but hardly more than the coder takes: where a bin is too small, that is an escape code.

        It spends 16 bits and then about 2 + 2 log2(1 + d) for a distance of d bins from the mean (`coding.tables`; less
        in wide tables, where escapes are rare). Without it one element far from a narrow Gaussian costs thousands of
        bits, its gradient drowns all others, and training falls over from time to time.
        """
        z, mean = _align(z, getattr(self, "mean", 0.0))
        escaped = math.log(ESCAPE_MASS / 4) - 2 * jnp.log1p(jnp.abs(z - mean))
        inside = math.log1p(-ESCAPE_MASS) + self.log_mass(z)
        return jnp.logaddexp(inside, escaped) * (-1.0 / math.log(2.0))


def as_float(z: Array | float) -> Array:
    z = jnp.asarray(z)
    return z if jnp.issubdtype(z.dtype, jnp.floating) else z.astype(jnp.float32)


def _align(z: Array | float, *parameters: Array | float) -> tuple[Array, ...]:
    """Arrays of equal rank (leading axes of length 1 added), so that what follows never promotes ranks."""
    z = as_float(z)
    arrays = [z, *(jnp.asarray(p, z.dtype) for p in parameters)]
    rank = max(a.ndim for a in arrays)
    return tuple(a.reshape((1,) * (rank - a.ndim) + a.shape) for a in arrays)


def logistic_log_difference(lower: Array, upper: Array, width: Array) -> Array:
    """log(sigmoid(upper) - sigmoid(lower)) where width = upper - lower > 0, computed before rounding could harm it."""
    # The difference is sigmoid(upper) sigmoid(-lower) (1 - exp(-width)): nothing cancels.
    return jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-width))


# --- Three standard distributions, all symmetric about 0. ---
# `log_cdf(x)` of the standardised x; `log_mass(d, s)` of the unit bin whose centre is d >= 0 from the mean, at scale s.


def _logistic_log_mass(d: Array, s: Array) -> Array:
    return logistic_log_difference((d - 0.5) / s, (d + 0.5) / s, 1.0 / s)


def _sides(x: Array) -> tuple[Array, Array]:
    # Each half-line's values with 0 in place of the other's, so that no branch overflows, in value or gradient.
    return jnp.where(x < 0.0, x, 0.0), jnp.where(x < 0.0, 0.0, x)


def _laplace_cdf(x: Array) -> Array:
    below, above = _sides(x)
    return jnp.where(x < 0.0, 0.5 * jnp.exp(below), 1.0 - 0.5 * jnp.exp(-above))


def _laplace_log_cdf(x: Array) -> Array:
    below, above = _sides(x)
    return jnp.where(x < 0.0, below - math.log(2.0), jnp.log1p(-0.5 * jnp.exp(-above)))


def _laplace_log_mass(d: Array, s: Array) -> Array:
    # A bin that holds the mean has the mass 1 - exp(-h) cosh(t), with h = 1/(2s) and t = d/s <= h, here without its
    # cancellation for wide s; one beyond it has that of t = h times exp(-distance).
    near = jnp.minimum(d, 0.5)
    mass = -jnp.expm1(-0.5 / s) - 0.5 * jnp.exp((near - 0.5) / s) * jnp.square(jnp.expm1(-near / s))
    return jnp.log(mass) - jnp.maximum(d - 0.5, 0.0) / s


def _laplace_quantile(p: Array) -> Array:
    return jnp.where(p < 0.5, jnp.log(2.0 * p), -jnp.log(2.0 * (1.0 - p)))


def _mills(x: Array) -> Array:
    """Mills' ratio P(Z > x) / density(x) of the standard normal, x >= 0: from 1.2533 at 0, falling as 1/x.

    Relative error below 3e-6 in float32. (`log_ndtr`'s gradient is wrong beyond x = 1e3, and `erfcx` of JAX 0.10.2
    is 0 near 9.2, hence this.)
    """
    far = x > 4.5
    near = jnp.where(far, 0.0, x)
    scaled = math.sqrt(0.5 * math.pi) * jnp.exp(0.5 * near * near) * erfc(near * math.sqrt(0.5))
    # The eighth convergent of Laplace's continued fraction 1/(x + 1/(x + 2/(x + 3/(x + ...)))), in 1/x^2.
    inverse = 1.0 / jnp.where(far, x, 4.5)
    y = inverse * inverse
    numerator = 1.0 + y * (27.0 + y * (185.0 + y * 279.0))
    denominator = 1.0 + y * (28.0 + y * (210.0 + y * (420.0 + y * 105.0)))
    return jnp.where(far, inverse * numerator / denominator, scaled)


def _gaussian_log_cdf(x: Array) -> Array:
    distance = jnp.abs(x)
    log_tail = jnp.log(_mills(distance)) - 0.5 * distance * distance - _LOG_SQRT_2PI
    return jnp.where(x < 0.0, log_tail, jnp.log1p(-jnp.exp(log_tail)))


def _gaussian_log_mass_and_hazard(d: Array, s: Array) -> tuple[Array, Array]:
    """The log-mass, and the standard density at the bin's lower edge (d - 1/2) / s over the mass."""
    width = 1.0 / s
    middle = d * width
    tilt = middle * width  # by how much the log-density falls over the bin
    lower, upper = (d - 0.5) * width, (d + 0.5) * width
    narrow = (width < 0.5) & (tilt < 0.5)
    holds_mean = lower < 0.0

    # Narrow: density at the middle times the width, times the average of exp(-middle t - t^2 / 2) over the bin.
    a = jnp.square(jnp.where(narrow, tilt, 0.0))
    b = jnp.square(jnp.where(narrow, width, 0.0))
    series = jnp.log1p((a - b) / 24.0 + (a * a - 6.0 * a * b + 3.0 * b * b) / 1920.0) + jnp.log(width)
    in_narrow = series - 0.5 * middle * middle - _LOG_SQRT_2PI
    hazard_narrow = jnp.exp(jnp.where(narrow, 0.5 * tilt - 0.125 * b - series, 0.0))

    # Wide: 1 - both tails where the bin holds the mean, else the difference of the upper tails, over their density.
    near = jnp.abs(lower)
    near_mills, upper_mills = _mills(near), _mills(upper)
    log_density = -0.5 * near * near - _LOG_SQRT_2PI
    both_tails = jnp.exp(log_density) * (near_mills + jnp.exp(-tilt) * upper_mills)
    in_middle = jnp.log1p(-jnp.where(narrow | ~holds_mean, 0.0, both_tails))
    difference = jnp.where(narrow | holds_mean, 1.0, near_mills - jnp.exp(-tilt) * upper_mills)
    in_tail = log_density + jnp.log(difference)
    hazard_middle = jnp.exp(jnp.where(narrow | ~holds_mean, 0.0, log_density - in_middle))

    log_mass = jnp.where(narrow, in_narrow, jnp.where(holds_mean, in_middle, in_tail))
    return log_mass, jnp.where(narrow, hazard_narrow, jnp.where(holds_mean, hazard_middle, 1.0 / difference))


@jax.custom_jvp
def _gaussian_log_mass(d: Array, s: Array) -> Array:
    return _gaussian_log_mass_and_hazard(d, s)[0]


@_gaussian_log_mass.defjvp
def _gaussian_log_mass_jvp(primals, tangents):
    # d mass = (density(upper) d upper - density(lower) d lower), and density(upper) = density(lower) exp(-tilt):
    # cheaper and more accurate than the derivative of each branch above.
    d, s = primals
    log_mass, hazard = _gaussian_log_mass_and_hazard(d, s)
    width = 1.0 / s
    fall = -jnp.expm1(-d * width * width)
    slope = hazard * width
    by_d = -slope * fall
    by_s = slope * (d * width * fall - width * (1.0 - 0.5 * fall))
    return log_mass, by_d * tangents[0] + by_s * tangents[1]


class _Standard(NamedTuple):
    cdf: Callable[[Array], Array]
    log_cdf: Callable[[Array], Array]
    log_mass: Callable[[Array, Array], Array]
    quantile: Callable[[Array], Array]


_STANDARD: Mapping[str, _Standard] = {
    "logistic": _Standard(jax.nn.sigmoid, jax.nn.log_sigmoid, _logistic_log_mass, logit),
    "gaussian": _Standard(ndtr, _gaussian_log_cdf, _gaussian_log_mass, ndtri),
    "laplace": _Standard(_laplace_cdf, _laplace_log_cdf, _laplace_log_mass, _laplace_quantile),
}

FAMILIES: tuple[str, ...] = tuple(_STANDARD)
"""The families of `Prior`."""


class Prior(Verbs, struct.PyTreeNode):
    """A logistic, Gaussian or Laplace distribution for every element of a latent.

    Attributes:
      family: one of `FAMILIES`; static, so one compiled program serves one family.
      mean: any real values; broadcasts to z by NumPy's rules (a per-channel mean has the shape of the last axis).
      scale: > 0, the family's own: sigma of the Gaussian, s of the logistic (standard deviation 1.81 s), b of the
        Laplace (1.41 b). Broadcasts to z. A scale of 0 or less gives NaN: floor it where it is made.

    Raises:
      ValueError: the family is not one of `FAMILIES`.
    """

    family: str = struct.field(pytree_node=False)
    mean: Array | float = 0.0
    scale: Array | float = 1.0

    def __post_init__(self):
        if self.family not in _STANDARD:
            raise ValueError(f"unknown prior family {self.family!r}: choose one of {', '.join(FAMILIES)}")

    def _standardise(self, z: Array) -> Array:
        z, mean, scale = _align(z, self.mean, self.scale)
        return (z - mean) / scale

    def cdf(self, z: Array) -> Array:
        """P(Z <= z), in [0, 1]; of z's shape."""
        return _STANDARD[self.family].cdf(self._standardise(z))

    def log_cdf(self, z: Array) -> Array:
        """ln P(Z <= z), <= 0, finite in the far tails; of z's shape."""
        return _STANDARD[self.family].log_cdf(self._standardise(z))

    def log_survival(self, z: Array) -> Array:
        """ln P(Z > z), <= 0, finite in the far tails; of z's shape."""
        return _STANDARD[self.family].log_cdf(-self._standardise(z))

    def log_mass(self, z: Array) -> Array:
        """ln P(z - 1/2 < Z <= z + 1/2) <= 0, of z's shape; finite, with finite gradients, in the module's range.

        Limits: scale to 0 gives 0 for the bin that holds the mean; a large scale gives the log-density at z.
        """
        z, mean, scale = _align(z, self.mean, self.scale)
        return _STANDARD[self.family].log_mass(jnp.abs(z - mean), scale)

    def quantile(self, p: Array | float) -> Array:
        """The z with cdf(z) = p; p in [0, 1] broadcasts with mean and scale; -inf at 0, inf at 1."""
        p, mean, scale = _align(p, self.mean, self.scale)
        return mean + scale * _STANDARD[self.family].quantile(p)


def logistic(mean: Array | float = 0.0, scale: Array | float = 1.0) -> Prior:
    """Logistic `Prior`: cdf(z) = sigmoid((z - mean) / scale). Its standard unit bin at 0 costs 2.03 bits."""
    return Prior("logistic", mean, scale)


def gaussian(mean: Array | float = 0.0, scale: Array | float = 1.0) -> Prior:
    """Gaussian `Prior` with standard deviation `scale`."""
    return Prior("gaussian", mean, scale)


def laplace(mean: Array | float = 0.0, scale: Array | float = 1.0) -> Prior:
    """Laplace `Prior`: density exp(-|z - mean| / scale) / (2 scale)."""
    return Prior("laplace", mean, scale)

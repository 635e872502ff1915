"""Uniform binning of latents (bin width 1), and what stands in for it while training.

Rounding has a gradient of zero almost everywhere, so training replaces it by one of three operators:

| operator                 | value                    | gradient with respect to z |
|--------------------------|--------------------------|----------------------------|
| `add_uniform_noise`      | z + u, u ~ U(-1/2, 1/2)  | 1                          |
| `round_straight_through` | round(z - mean) + mean   | 1                          |
| `soft_round`             | between round(z) and z   | that of the value, exactly |

Ties round to the even integer everywhere, as NumPy and JAX do.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

# Beyond these the value equals its limit in float32, while the formula would divide 0 by 0 or overflow.
_COLDEST, _HOTTEST = 1e-4, 1e3
# The largest float32 below 2^31 that is also far enough from it for a sum with a table's offset to stay an int32.
_LARGEST_SYMBOL = 2.0**30


def bin_uniform(z: Array, mean: Array | float = 0.0) -> Array:
    """The centre of the unit bin that holds z: `round(z - mean) + mean`, without a gradient.

    Args:
      z: latent, any shape, any real values.
      mean: where a bin is centred; broadcasts to z.

    Returns:
      Array of z's shape and type; at most 1/2 from z (up to float rounding).
    """
    return jax.lax.stop_gradient(jnp.round(z - mean) + mean)


def symbols(z: Array, mean: Array | float = 0.0) -> Array:
    """The integer of the bin that holds z, `round(z - mean)`: what the entropy coder is given.

    Args:
      z: latent, any shape, finite.
      mean: as in `bin_uniform`, so that `bin_uniform(z, mean) == symbols(z, mean) + mean`.

    Returns:
      int32 array of z's shape, limited to [-2^30, 2^30]. No gradient.
    """
    return jnp.clip(jnp.round(z - mean), -_LARGEST_SYMBOL, _LARGEST_SYMBOL).astype(jnp.int32)


def add_uniform_noise(key: Array, z: Array) -> Array:
    """`z + u` with independent u ~ U(-1/2, 1/2): binning's stand-in for the rate (Ballé et al. 2017, section 3).

    The density of the result at an integer offset from a prior's mean is the mass of that unit bin, so
    `bits(add_uniform_noise(key, z))` is an unbiased surrogate for the rate of the binned latent.

    Args:
      key: a JAX random key.
      z: latent, any shape, floating point.

    Returns:
      Array of z's shape and type; its gradient with respect to z is 1.
    """
    # Drawn flat, the same numbers compile twenty times as fast on a CPU.
    return z + jax.random.uniform(key, (z.size,), z.dtype, -0.5, 0.5).reshape(z.shape)


@jax.custom_jvp
def _round_straight_through(z: Array) -> Array:
    return jnp.round(z)


@_round_straight_through.defjvp
def _round_straight_through_jvp(primals, tangents):
    # A rule of its own rather than z + stop_gradient(round(z) - z), whose float32 value is not always an integer.
    return jnp.round(primals[0]), tangents[0]


def round_straight_through(z: Array, mean: Array | float = 0.0) -> Array:
    """`round(z - mean) + mean` whose gradient is 1 for z and 0 for mean (Theis et al. 2017, section 2.1).

    The value is exactly that of `bin_uniform`: what the decoder will have.

    Args:
      z: latent, any shape.
      mean: where a bin is centred; broadcasts to z.

    Returns:
      Array of z's shape and type.
    """
    return _round_straight_through(z - mean) + mean


def soft_round(z: Array, temperature: Array | float) -> Array:
    """A smooth, strictly increasing rounding (Agustsson & Theis 2020, section 4.1), alpha there = 1 / temperature.

    Integers and half-integers stay where they are; between them the value is drawn to the nearest integer, the more
    so the lower the temperature: towards `round(z)` at 0 and towards `z` at infinity.

    Args:
      z: latent, any shape.
      temperature: > 0, scalar or broadcasting to z; limited to [1e-4, 1e3], where both limits are reached in float32.
        Below about 0.05 most gradients are zero in float32.

    Returns:
      Array of z's shape and type; its gradient is the exact one of this value, for z and for temperature.
    """
    temperature = jnp.clip(temperature, _COLDEST, _HOTTEST).astype(z.dtype)
    half = jnp.floor(z) + 0.5
    return half + 0.5 * jnp.tanh((z - half) / temperature) / jnp.tanh(0.5 / temperature)


def soft_round_inverse(y: Array, temperature: Array | float) -> Array:
    """The z whose `soft_round(z, temperature)` is y (Agustsson & Theis 2020, section 4.1).

    Args:
      y: any shape.
      temperature: as in `soft_round`. Below about 0.1 float32 no longer tells the values near an integer apart, and
        the result is some z of the same bin.

    Returns:
      Array of y's shape and type, finite.
    """
    temperature = jnp.clip(temperature, _COLDEST, _HOTTEST).astype(y.dtype)
    half = jnp.floor(y) + 0.5
    limit = 1.0 - jnp.finfo(y.dtype).epsneg
    inner = jnp.clip(2.0 * (y - half) * jnp.tanh(0.5 / temperature), -limit, limit)
    return half + temperature * jnp.arctanh(inner)


def fake_quantise(x: Array, low: Array, high: Array, steps: int = 255) -> Array:
    """The nearest of steps + 1 even values from low to high: what an integer layer sees, in float.

    low and high broadcast to x. The gradient is that of cutting x to them; they have none themselves.
    """
    low, high = jax.lax.stop_gradient(low), jax.lax.stop_gradient(high)
    x = jnp.clip(x, low, high)
    step = (high - low) / steps
    step = jnp.where(step > 0, step, 1)
    return x + jax.lax.stop_gradient(low + step * jnp.round((x - low) / step) - x)

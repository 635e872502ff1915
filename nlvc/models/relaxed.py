"""The frozen networks as smooth functions: the steps of `frozen.Exact` in float and without rounding, so that there are
gradients. With them an encoder asks what a change of a symbol does to the picture that the decoder will draw."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc.config import Config
from nlvc.models import frozen, integer, lapped
from nlvc.models.frozen import LATENT_LIMIT, PIXEL_UNITS, ROOTS, STREAM_LIMIT, crop
from nlvc.models.layers import convolve_inside, depth_to_space


class Relaxed:
    """An `Arithmetic` with the arrays of one frozen network, as `frozen.Exact`; activations are float32."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def _row(self, name: str) -> Array:
        """One number a channel, or one for all, float32 (1, 1, 1, C or 1)."""
        return jnp.asarray(self.arrays[name]).astype(jnp.float32).reshape(1, 1, 1, -1)

    def _array(self, name: str) -> Array:
        return jnp.asarray(self.arrays[name]).astype(jnp.float32)

    def _scaled(self, name: str, x: Array) -> Array:
        limit, before, multiplier, after = (self._row(f"{name}/{field}") for field in integer.Scale._fields)
        return jnp.clip(x, -limit, limit) * (multiplier * 2.0 ** -(before + after))

    def _sums(self, name: str, x: Array) -> Array:
        kernel = self._array(f"{name}/kernel")
        return convolve_inside(x, kernel, as_dot=jax.default_backend() == "cpu") + self._row(f"{name}/bias")

    def enter(self, name: str, z: Array, layout=lambda z: z) -> Array:
        return to_range(self._scaled(name, jnp.clip(layout(z), -LATENT_LIMIT, LATENT_LIMIT)))

    def rescale(self, name: str, z: Array) -> Array:
        return jnp.clip(self._scaled(name, jnp.clip(z, -LATENT_LIMIT, LATENT_LIMIT)), -LATENT_LIMIT, LATENT_LIMIT)

    def convolve(self, name: str, x: Array, block: int = 1) -> Array:
        return depth_to_space(to_range(self._scaled(name, self._sums(name, x))), block)

    def activate(self, name: str, x: Array) -> Array:
        return between(self._array(f"{name}/table"), x + 128)

    def normalise(self, name: str, x: Array) -> Array:
        x = jnp.maximum(x, -127)
        power = jnp.dot(x * x, self._array(f"{name}/gamma")) + self._row(f"{name}/beta")
        place = jnp.clip(self._scaled(f"{name}/power", power), 0, ROOTS - 1)
        x = x * between(self._array(f"{name}/root"), place)
        return to_range(self._scaled(name, x))

    def widen(self, name: str, stream: str, x: Array, block: int = 1) -> Array:
        return depth_to_space(self._scaled(name, self._sums(name, x)), block)

    def add(self, stream: str, x: Array, y: Array, margin: int = 2) -> Array:
        return crop(x, margin) + y

    def narrow(self, name: str, stream: Array) -> Array:
        x = jnp.clip(stream, -STREAM_LIMIT, STREAM_LIMIT) + self._row(f"{name}/bias")
        return to_range(self._scaled(name, x))

    def finish(self, name: str, x: Array) -> Array:
        return self._scaled(name, self._sums(name, x))

    def linear(self, name: str, z: Array) -> Array:
        largest, weights = self._row(f"{name}/largest"), 256 * self._array(f"{name}/high") + self._array(f"{name}/low")
        return self._scaled(name, jnp.dot(jnp.clip(z, -largest, largest), weights))

    def lap(self, name: str, x: Array, block: int, inside) -> Array:
        x = depth_to_space(x, block)
        turned = lambda odd: self.linear(name, odd.reshape(1, 1, -1, block // 2)).reshape(odd.shape)  # noqa: E731
        return lapped.across(x, block, turned, lambda x: 0.5 * x, inside)


def to_range(x: Array) -> Array:
    """Cut to what int8 holds."""
    return jnp.clip(x, -128, 127)


def between(table: Array, place: Array) -> Array:
    """A table read at places that are no integers, along straight lines."""
    below = jnp.clip(jnp.floor(place), 0, len(table) - 2)
    index = below.astype(jnp.int32)
    low = jnp.take(table, index, mode="clip")
    return low + (place - below) * (jnp.take(table, index + 1, mode="clip") - low)


def squared_error(config: Config, weights: dict, z: Array, inside, target: Array, counted: Array) -> Array:
    """Sum of squared differences, in grey levels, of what z_1 shows and what it should.

    Args:
      weights: arrays of the frozen synthesis; z: z_1 in units with a margin, float32 (1, h, w, C); inside: as of
        `frozen.synthesis`.
      target: uint8 (1, H, W, 3) for the positions without the margin; counted: bool (1, H, W, 1), the pixels that are
        part of the picture.
    """
    grey = frozen.grey_levels(config, *frozen.synthesis(Relaxed(weights), config, z, inside))
    grey = jnp.clip(grey / PIXEL_UNITS + 127.5, 0, 255)
    return jnp.sum(jnp.where(counted, (grey - target.astype(jnp.float32)) ** 2, 0))

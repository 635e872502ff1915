"""The decoder's networks without Flax: from z_{l+1} to the tables' indices and offsets of z_l, and from z_1 to pixels.

Each network is written once, over an arithmetic that says what its steps are:

    Exact       int8 and int32 by `models.integer`: what compresses and decompresses
    Calibrator  float, remembering how large everything gets (`models.freeze`)
    a test's    NumPy in int64: the oracle

Between the networks lie integers: latents in units of 1/MEAN_UNITS bins, int32.
"""

from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc.config import Config
from nlvc.models import integer
from nlvc.models.transforms import depth_to_space, stages

MEAN_UNITS = 16
"""Means and dequantised latents are counted in sixteenths of a bin."""
LATENT_LIMIT = (1 << 15) - 129
"""Networks see latents cut to this many units, so that they fit in two int8 limbs."""
SCALE_UNITS = 16
"""Log scales are counted in this fraction of the step between two of the coder's scales."""
PIXEL_UNITS = 64
"""Reconstructions are counted in this fraction of a grey level."""
STREAM_LIMIT = 1 << 15
"""Largest value that leaves the stream of a residual block."""


class Arithmetic(Protocol):
    """What the steps of a network are. `name` finds the weights of a step; activations are whatever it likes."""

    def enter(self, name: str, z) -> object:
        """Latents in units -> activations."""

    def convolve(self, name: str, x, edge: bool, block: int = 1) -> object:
        """Activations -> what `activate` takes, after depth-to-space; edge: continue x by its border, else by zeros."""

    def activate(self, name: str, x) -> object:
        """The nonlinearity after the step of that name -> activations."""

    def finish(self, name: str, x, edge: bool) -> object:
        """The last convolution: activations -> int32 in the network's own units."""

    def widen(self, name: str, x, block: int = 1) -> object:
        """A convolution continued by zeros, after depth-to-space -> the stream of a residual block, of many bits."""

    def narrow(self, name: str, stream) -> object:
        """A stream -> what `activate` takes."""

    def linear(self, name: str, z) -> object:
        """A linear map of latents in units -> int32 in the network's own units."""


def level_synthesis(a: Arithmetic, config: Config, level: int, above) -> tuple:
    """z_{level+1} in units -> what `finish` and `linear` give, to be joined by `level_parameters`."""
    x = a.activate("Conv_0", a.convolve("Conv_0", a.enter("enter", above), edge=True))
    blocks = stages("plain", config.level_strides[level])
    for number, block in enumerate(blocks, start=1):
        name = f"Conv_{number}"
        x = a.activate(name, a.convolve(name, x, edge=True, block=block))
    x = a.finish(f"Conv_{len(blocks) + 1}", x, edge=True)
    return x, a.linear("energy", above) if config.linear_path else None


def level_parameters(config: Config, level: int, parameters, energy) -> tuple:
    """(means in units, log scales in units), (B, stride h, stride w, C), of p(z_level | z_{level+1})."""
    channels, stride = config.level_channels[level - 1], config.level_strides[level]
    mean, log_scale = parameters[..., :channels], parameters[..., channels:]
    if energy is not None:
        log_scale = log_scale + energy.repeat(stride, axis=1).repeat(stride, axis=2)
    return mean, log_scale


def synthesis(a: Arithmetic, config: Config, z) -> tuple:
    """z_1 in units -> what `finish` and `linear` give, to be joined by `pixels`."""
    _, *rest = stages(config.transform, config.level_strides[0])
    x = a.enter("enter", z)
    number = 0
    if config.transform == "residual":
        x = a.activate("Conv_0", a.convolve("Conv_0", x, edge=False))
        number = 1
    for block_number, block in enumerate(reversed(rest)):
        name = f"Conv_{number + block_number}"
        if config.transform == "residual":
            inner = f"Residual_{block_number}"
            stream = a.widen(name, x, block)
            hidden = a.activate(f"{inner}/enter", a.narrow(f"{inner}/enter", stream))
            hidden = a.activate(f"{inner}/Conv_0", a.convolve(f"{inner}/Conv_0", hidden, edge=False))
            stream = stream + a.widen(f"{inner}/Conv_1", hidden)
            x = a.activate(f"{inner}/leave", a.narrow(f"{inner}/leave", stream))
        else:
            x = a.activate(name, a.convolve(name, x, edge=False, block=block))
    x = a.finish(f"Conv_{number + len(rest)}", x, edge=False)
    return x, a.linear("basis", z) if config.linear_path else None


def pixels(config: Config, network, linear):
    """uint8 (B, stride h, stride w, 3)."""
    x = depth_to_space(network, stages(config.transform, config.level_strides[0])[0])
    if linear is not None:
        x = x + depth_to_space(linear, config.level_strides[0])
    # Half of white, and half a grey level before the shift.
    x = (x + (PIXEL_UNITS * 255 + PIXEL_UNITS) // 2) >> (PIXEL_UNITS.bit_length() - 1)
    return jnp.clip(x, 0, 255).astype(jnp.uint8)


class Exact:
    """Integer arithmetic with the arrays of one frozen network: {"Conv_0/kernel": ..., ...}."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def _scale(self, name: str) -> integer.Scale:
        return integer.Scale(*(self.arrays[f"{name}/{field}"] for field in integer.Scale._fields))

    def _sums(self, name: str, x: Array, edge: bool) -> Array:
        outside = None if edge else self.arrays[f"{name}/outside"]
        return integer.convolve(x, self.arrays[f"{name}/kernel"], self.arrays[f"{name}/bias"], outside)

    def enter(self, name: str, z: Array) -> Array:
        z = jnp.clip(z, -LATENT_LIMIT, LATENT_LIMIT)
        return integer.to_int8(integer.requantise(z, self._scale(name)))

    def convolve(self, name: str, x: Array, edge: bool, block: int = 1) -> Array:
        x = integer.to_int8(integer.requantise(self._sums(name, x, edge), self._scale(name)))
        return depth_to_space(x, block)

    def activate(self, name: str, x: Array) -> Array:
        return integer.lookup(x, self.arrays[f"{name}/table"])

    def finish(self, name: str, x: Array, edge: bool) -> Array:
        return integer.requantise(self._sums(name, x, edge), self._scale(name))

    def widen(self, name: str, x: Array, block: int = 1) -> Array:
        return depth_to_space(integer.requantise(self._sums(name, x, edge=False), self._scale(name)), block)

    def narrow(self, name: str, stream: Array) -> Array:
        x = jnp.clip(stream, -STREAM_LIMIT, STREAM_LIMIT) + self.arrays[f"{name}/bias"]
        return integer.to_int8(integer.requantise(x, self._scale(name)))

    def linear(self, name: str, z: Array) -> Array:
        largest = self.arrays[f"{name}/largest"].reshape(1, 1, 1, -1)
        z = jnp.clip(z, -largest, largest)
        sums = integer.dot(z, self.arrays[f"{name}/high"], self.arrays[f"{name}/low"])
        return integer.requantise(sums, self._scale(name))

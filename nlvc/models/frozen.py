"""The decoder's networks without Flax: from z_{l+1} to the tables' indices and offsets of z_l, and from z_1 to pixels.

Each network is written once, over an arithmetic that says what its steps are:

    Exact        int8 and int32 (`models.integer`): what compresses and decompresses
    Calibrator   float, remembering how large everything gets (`models.freeze`)
    the oracle   NumPy in int64, in the tests

There are no borders in here. Every convolution gives only the positions of which it has seen all neighbours, so a
network needs its input with a margin (`margin`), and what it says of a position depends on that position's surroundings
alone: not on the tile, the batch or the photo that they were cut from. Around a whole photo the latents are continued
by their edge.

Between the networks lie integers: latents in units of 1/MEAN_UNITS bins, int32.
"""

from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc.config import Config
from nlvc.models import integer, lapped
from nlvc.models.layers import REFINEMENTS, depth_to_space, refined_block, space_to_depth, stages

MEAN_UNITS = 16
"""Means and dequantised latents are counted in sixteenths of a bin."""
LATENT_LIMIT = (1 << 15) - 129
"""Networks see latents cut to this many units, so that they fit in two int8 limbs."""
SCALE_UNITS = 16
"""Log scales are counted in this fraction of the step between two of the coder's scales."""
PIXEL_UNITS = 64
"""Reconstructions are counted in this fraction of a grey level."""
ROOTS = 1 << 12
"""Entries of the table of square roots in an inverse GDN."""
STREAM_LIMIT = 1 << 15
"""Largest value that leaves the stream of a residual block."""
PREVIEW = 8
"""A preview is smaller by this factor, or by the stride of z_1 if that is less."""


class Arithmetic(Protocol):
    """What the steps of a network are. `name` finds the weights of a step; activations are whatever it likes.

    `convolve`, `widen` and `finish` are convolutions without borders: each side is shorter by k - 1.
    """

    def enter(self, name: str, z, layout=lambda z: z):
        """Numbers in units, rearranged by layout -> activations."""

    def rescale(self, name: str, z):
        """Latents in units -> the same in the units of the highest rate, cut to LATENT_LIMIT."""

    def convolve(self, name: str, x, block: int = 1):
        """Activations -> what `activate` takes, after depth-to-space."""

    def activate(self, name: str, x):
        """GELU after the step of that name -> activations."""

    def normalise(self, name: str, x):
        """Inverse GDN: x_i sqrt(beta_i + sum_j gamma_ij x_j^2) -> activations."""

    def widen(self, name: str, stream: str, x, block: int = 1):
        """A convolution: activations -> the stream of a residual block, of many bits, after depth-to-space."""

    def add(self, stream: str, x, y, margin: int = 2):
        """A stream without a border, which two convolutions have eaten, plus what they made of it."""

    def narrow(self, name: str, stream):
        """A stream -> what `activate` takes."""

    def finish(self, name: str, x):
        """The last convolution: activations -> int32 in the network's own units."""

    def linear(self, name: str, z):
        """A linear map of latents in units -> int32 in the network's own units."""

    def lap(self, name: str, x, block: int, inside):
        """What `linear` says of blocks -> the picture (B, H, W, 3) by `lapped.postfilter`, int32."""


def level_synthesis(a: Arithmetic, config: Config, level: int, above) -> tuple:
    """z_{level+1} in units, with its margin -> what `finish` and `linear` give, for `level_parameters`."""
    return level_told(a, config, level, level_hidden(a, config, level, above), above)


def level_hidden(a: Arithmetic, config: Config, level: int, above):
    """z_{level+1} in units, with its margin -> what the last layer sees."""
    x = a.activate("Conv_0", a.convolve("Conv_0", a.enter("enter", above)))
    blocks = stages("plain", config.level_strides[level])
    for number, block in enumerate(blocks, start=1):
        x = a.activate(f"Conv_{number}", a.convolve(f"Conv_{number}", x, block))
    return x


def level_told(a: Arithmetic, config: Config, level: int, hidden, above) -> tuple:
    """What `level_hidden` gives -> what `level_synthesis` does."""
    last = len(stages("plain", config.level_strides[level])) + 1
    return a.finish(f"Conv_{last}", hidden), a.linear("energy", above) if config.linear_path else None


def synthesis(a: Arithmetic, config: Config, z, inside=(None, None)) -> tuple:
    """z_1 in units, with its margin -> what `finish` gives and the linear path's picture or None, for `pixels`.

    inside: which borders between rows, and columns, of z_1 lie inside the picture, by `lapped.borders`; None: all.
    """
    if config.rate == "variable":
        z = a.rescale("gain", z)
    if config.linear_path:
        stride = config.level_strides[0]
        drawn = a.lap("lap", a.linear("basis", z), stride, inside)
        # The outer half of the outer blocks has not seen its neighbours.
        seen = refined_block(stride) * _unseen(stride)
        x = a.enter("enter", drawn, lambda x: space_to_depth(crop(x, seen), refined_block(stride)))
        return refinement(a, config, x), drawn
    _, *rest = stages(config.transform, config.level_strides[0])
    activate = activation(a, config)
    x = a.enter("enter", z)
    if config.transform == "residual":
        x = activate("Conv_0", "GDN_0", a.convolve("Conv_0", x))
    for number, block in enumerate(reversed(rest)):
        if config.transform == "residual":
            inner = f"Residual_{number}"
            stream = residual(a, config, inner, inner, a.widen(f"Conv_{number + 1}", inner, x, block))
            x = a.activate(f"{inner}/leave", a.narrow(f"{inner}/leave", stream))
        else:
            x = activate(f"Conv_{number}", f"GDN_{number}", a.convolve(f"Conv_{number}", x, block))
    return a.finish(f"Conv_{len(rest) + (config.transform == 'residual')}", x), None


def refinement(a: Arithmetic, config: Config, x):
    """Activations that show a picture -> what `finish` gives."""
    stream = a.widen("Conv_0", "stream", x)
    for number in range(REFINEMENTS):
        stream = residual(a, config, f"Residual_{number}", "stream", stream)
    return a.finish("Conv_1", activation(a, config)("last", "GDN_0", a.narrow("last", stream)))


def residual(a: Arithmetic, config: Config, name: str, stream_name: str, stream):
    """A stream -> the same, shorter by two on each side, plus what a residual block adds."""
    activate = activation(a, config)
    x = activate(f"{name}/enter", f"{name}/GDN_0", a.narrow(f"{name}/enter", stream))
    x = activate(f"{name}/Conv_0", f"{name}/GDN_1", a.convolve(f"{name}/Conv_0", x))
    return a.add(stream_name, stream, a.widen(f"{name}/Conv_1", stream_name, x))


def activation(a: Arithmetic, config: Config):
    """A function of the step's name, the GDN's name, and what to activate."""
    return lambda name, gdn, x: a.normalise(gdn, x) if config.activation == "gdn" else a.activate(name, x)


def level_margins(config: Config, level: int) -> tuple[int, int]:
    """(positions of z_{level+1} that `level_synthesis` needs around its own, positions of z_level left over)."""
    return _margins([(1, 1), *((1, block) for block in stages("plain", config.level_strides[level])), (1, 1)])


def synthesis_margins(config: Config) -> tuple[int, int]:
    """(positions of z_1 that `synthesis` needs around its own, positions before the last depth-to-space left over)."""
    if config.linear_path:
        finer = config.level_strides[0] // refined_block(config.level_strides[0])
        return _margins([(0, finer), (_unseen(config.level_strides[0]) + 1, 1), *[(2, 1)] * REFINEMENTS, (1, 1)])
    _, *rest = stages(config.transform, config.level_strides[0])
    steps = [(1, 1)] if config.transform == "residual" else []
    for block in reversed(rest):
        steps += [(1, block)] + ([(2, 1)] if config.transform == "residual" else [])
    return _margins([*steps, (1, 1)])


def _unseen(stride: int) -> int:
    """Positions of a refinement in half a block of the linear path."""
    return max(stride // 2, refined_block(stride)) // refined_block(stride)


def _margins(steps: list[tuple[int, int]]) -> tuple[int, int]:
    """Steps (what convolutions eat on each side, depth-to-space after that) -> the least margin, and what is left."""
    for margin in range(64):
        left = margin
        for eaten, block in steps:
            left = (left - eaten) * block
            if left < 0:
                break
        else:
            return margin, left
    raise ValueError("these networks look too far around")


def level_parameters(config: Config, level: int, network, energy) -> tuple:
    """(means in units, log scales in units) of p(z_level | z_{level+1}), for the positions without the margin."""
    channels, stride = config.level_channels[level - 1], config.level_strides[level]
    margin, left = level_margins(config, level)
    network = crop(network, left)
    mean, log_scale = network[..., :channels], network[..., channels:]
    if energy is not None:
        log_scale = log_scale + crop(energy, margin).repeat(stride, axis=1).repeat(stride, axis=2)
    return mean, log_scale


def pixels(config: Config, network, drawn):
    """uint8 (B, stride h, stride w, 3) for the positions without the margin."""
    return to_uint8(grey_levels(config, network, drawn))


def grey_levels(config: Config, network, drawn):
    """The same above the middle of the range, in units of 1/PIXEL_UNITS."""
    margin, left = synthesis_margins(config)
    stride = config.level_strides[0]
    if drawn is None:
        return depth_to_space(crop(network, left), stages(config.transform, stride)[0])
    return depth_to_space(crop(network, left), refined_block(stride)) + crop(drawn, margin * stride)


def reduction(config: Config) -> int:
    """Pixels, in each direction, of one pixel of a preview."""
    return min(PREVIEW, config.level_strides[0])


def preview(a: Arithmetic, config: Config, z):
    """z_1 in units, without a margin -> a small picture by one linear map, uint8."""
    if config.rate == "variable":
        z = a.rescale("gain", z)
    return to_uint8(depth_to_space(a.linear("map", z), config.level_strides[0] // reduction(config)))


def to_uint8(x):
    """Grey levels above the middle, in units -> uint8."""
    # Half of white, and half a grey level before the shift.
    x = (x + (PIXEL_UNITS * 255 + PIXEL_UNITS) // 2) >> (PIXEL_UNITS.bit_length() - 1)
    return x.clip(0, 255).astype(np.uint8)


def crop(x, margin: int):
    """(B, H, W, C) without a border of that width."""
    return x[:, margin : x.shape[1] - margin, margin : x.shape[2] - margin]


class Exact:
    """Integer arithmetic with the arrays of one frozen network: {"Conv_0/kernel": ..., ...}."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def _scaled(self, name: str, x: Array) -> Array:
        by = integer.Scale(*(self.arrays[f"{name}/{field}"] for field in integer.Scale._fields))
        return integer.requantise(x, by)

    def _sums(self, name: str, x: Array) -> Array:
        return integer.convolve(x, self.arrays[f"{name}/kernel"], self.arrays[f"{name}/bias"])

    def enter(self, name: str, z: Array, layout=lambda z: z) -> Array:
        return integer.to_int8(self._scaled(name, jnp.clip(layout(z), -LATENT_LIMIT, LATENT_LIMIT)))

    def rescale(self, name: str, z: Array) -> Array:
        return jnp.clip(self._scaled(name, jnp.clip(z, -LATENT_LIMIT, LATENT_LIMIT)), -LATENT_LIMIT, LATENT_LIMIT)

    def convolve(self, name: str, x: Array, block: int = 1) -> Array:
        return depth_to_space(integer.to_int8(self._scaled(name, self._sums(name, x))), block)

    def activate(self, name: str, x: Array) -> Array:
        return integer.lookup(x, self.arrays[f"{name}/table"])

    def normalise(self, name: str, x: Array) -> Array:
        x = jnp.maximum(x.astype(jnp.int32), -127)
        power = integer.dot_squares(x, self.arrays[f"{name}/gamma"]) + self.arrays[f"{name}/beta"].reshape(1, 1, 1, -1)
        root = jnp.clip(self._scaled(f"{name}/power", power), 0, ROOTS - 1)
        x = x * jnp.take(jnp.asarray(self.arrays[f"{name}/root"]).astype(jnp.int32), root)
        return integer.to_int8(self._scaled(name, x))

    def widen(self, name: str, stream: str, x: Array, block: int = 1) -> Array:
        return depth_to_space(self._scaled(name, self._sums(name, x)), block)

    def add(self, stream: str, x: Array, y: Array, margin: int = 2) -> Array:
        return crop(x, margin) + y

    def narrow(self, name: str, stream: Array) -> Array:
        x = jnp.clip(stream, -STREAM_LIMIT, STREAM_LIMIT) + self.arrays[f"{name}/bias"].reshape(1, 1, 1, 1)
        return integer.to_int8(self._scaled(name, x))

    def finish(self, name: str, x: Array) -> Array:
        return self._scaled(name, self._sums(name, x))

    def linear(self, name: str, z: Array) -> Array:
        largest = self.arrays[f"{name}/largest"].reshape(1, 1, 1, -1)
        sums = integer.dot(jnp.clip(z, -largest, largest), self.arrays[f"{name}/high"], self.arrays[f"{name}/low"])
        return self._scaled(name, sums)

    def lap(self, name: str, x: Array, block: int, inside) -> Array:
        x = depth_to_space(x, block)
        turned = lambda odd: self.linear(name, odd.reshape(1, 1, -1, block // 2)).reshape(odd.shape)  # noqa: E731
        return lapped.across(x, block, turned, lambda x: (x + 1) >> 1, inside)

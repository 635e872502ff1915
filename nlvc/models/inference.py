"""The encoder's networks without Flax and without borders: from photos to z_1, and from z_l to z_{l+1}.

They run in float: what they give is rounded and written to the file, so the decoder never has to repeat it. Like the
decoder's (`models.frozen`) they need their input with a margin and say nothing of what lies in it; around a whole photo
the input is continued by its edge.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc.config import Config
from nlvc.models.lapped import prefilter
from nlvc.models.layers import convolve_inside, gdn, log_energy, space_to_depth, stages

Weights = dict
"""Nested dict of float32 arrays, as Flax names them, with every constant multiplied in (`models.freeze_encoder`)."""

_NEIGHBOURS = 64


class Tile:
    """Activations (B, H, W, C) and how many positions of each side are margin."""

    def __init__(self, x: Array, margin: int):
        if margin < 0:
            raise ValueError("the margin is too small for these networks")
        self.x, self.margin = x, margin

    def cropped(self, by: int) -> "Tile":
        height, width = self.x.shape[1:3]
        return Tile(self.x[:, by : height - by, by : width - by], self.margin - by)

    def convolved(self, layer: Weights) -> "Tile":
        kernel = layer["kernel"]
        x = convolve_inside(self.x, kernel, as_dot=jax.default_backend() == "cpu")
        return Tile(x + layer["bias"].reshape(1, 1, 1, -1), self.margin - kernel.shape[0] // 2)

    def mapped(self, function) -> "Tile":
        return Tile(function(self.x), self.margin)

    def packed(self, block: int) -> "Tile":
        """Space-to-depth, on the photo's own lattice."""
        whole = self.cropped(self.margin % block)
        return Tile(space_to_depth(whole.x, block), whole.margin // block)


def analysis(weights: Weights, config: Config, x: Array, margin: int, inside) -> Array:
    """Photos (B, H, W, 3) in [0, 1], margin included -> z_1 in bins, (B, h, w, C), without.

    inside: which borders between rows, and columns, of z_1 and one more on each side lie inside the picture, by
    `lapped.borders`.
    """
    stride = config.level_strides[0]
    *early, last = stages(config.transform, stride)
    residual = config.transform == "residual"
    tile = Tile(x - 0.5, margin)
    network, number = weights["analysis"], 0
    for index, block in enumerate(early):
        tile = tile.packed(block).convolved(network[f"Conv_{index}"])
        if residual:
            inner = network[f"Residual_{index}"]
            hidden = tile.mapped(nonlinearity(config, inner, 0)).convolved(inner["Conv_0"])
            hidden = hidden.mapped(nonlinearity(config, inner, 1)).convolved(inner["Conv_1"])
            tile = Tile(tile.cropped(2).x + hidden.x, hidden.margin)
        else:
            tile = tile.mapped(nonlinearity(config, network, index))
    tile, number = tile.packed(last), len(early)
    if residual:
        tile = tile.convolved(network[f"Conv_{number}"]).mapped(nonlinearity(config, network, 0))
        number += 1
    tile = tile.convolved(network[f"Conv_{number}"])
    z = tile.cropped(tile.margin).x
    if config.linear_path:
        blocks = Tile(x - 0.5, margin).cropped(margin - stride).mapped(lambda x: prefilter(x, stride, inside))
        z = z + jnp.dot(space_to_depth(blocks.cropped(stride).x, stride), weights["basis"])
    return z * weights["gain"].reshape(1, 1, 1, -1)


def level_analysis(weights: Weights, config: Config, level: int, z: Array, margin: int) -> Array:
    """z_level (B, h, w, C) in bins, margin included -> z_{level+1} in bins, without."""
    network, stride = weights[f"level_{level}"], config.level_strides[level]
    tile = Tile(z * network["entry"].reshape(1, 1, 1, -1), margin)
    tile = tile.convolved(network["Conv_0"]).mapped(jax.nn.gelu)
    blocks = stages("plain", stride)
    for number, block in enumerate(blocks, start=1):
        tile = tile.packed(block).convolved(network[f"Conv_{number}"]).mapped(jax.nn.gelu)
    tile = tile.convolved(network[f"Conv_{len(blocks) + 1}"])
    above = tile.cropped(tile.margin).x
    if config.linear_path:
        energy = log_energy(Tile(z, margin).cropped(margin).x, stride)
        above = above + jnp.dot(energy, network["energy"]) + network["energy_bias"].reshape(1, 1, 1, -1)
    return above


def nonlinearity(config: Config, weights: Weights, number: int):
    """GELU, or the GDN of that number among the weights."""
    if config.activation == "gelu":
        return jax.nn.gelu
    beta, gamma = weights[f"GDN_{number}"]["beta"], weights[f"GDN_{number}"]["gamma"]
    return lambda x: gdn(x, beta, gamma, False)


def unpacked(encoder: dict[str, np.ndarray], steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays encoder/... and encoder_steps/..., without these first words -> float32."""
    return {name: np.float32(value) * steps.get(name, np.float32(1)) for name, value in encoder.items()}


def margins(config: Config, level: int) -> int:
    """Positions of z_level (pixels for level 0) that the network to the next level needs around its own."""
    stride = config.level_strides[level]
    if level == 0:
        residual = config.transform == "residual"
        *early, last = stages(config.transform, stride)
        steps = [(block, 3 if residual else 1) for block in early] + [(last, 2 if residual else 1)]
    else:
        steps = [(1, 1), *((block, 1) for block in stages("plain", stride)), (1, 1)]
    for margin in range(0, _NEIGHBOURS * stride, stride):
        left = margin
        for block, eaten in steps:
            left = left // block - eaten
            if left < 0:
                break
        else:
            return margin
    raise ValueError("these networks look too far around")

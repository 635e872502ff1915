"""Analysis, synthesis and the transforms between levels: photos to latents and back, by convolutions.

Parameters are float32. A `dtype` of bfloat16 is for the arithmetic of all layers but each network's last, from which
bins, scales and pixels follow: what a network gives is float32 always.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from nlvc.models.layers import (
    REFINEMENTS,
    add_bias,
    causal_mask,
    convolve,
    depth_to_space,
    extend,
    gdn,
    pad_to_multiple,
    refined_block,
    space_to_depth,
    stages,
)
from nlvc.models.quantize import fake_quantise
from nlvc.models.rates import KNOTS, at

ZERO_UNIT = 0.05
"""What the weights of a layer that starts at zero are counted in. Adam moves the weights of its thousand inputs by the
learning rate all at once: in units of 1 that is far more than the errors which are left to correct."""


class Conv(nn.Module):
    """A convolution with bias: (B, H, W, C) -> (B, H, W, features)."""

    features: int
    size: int = 3
    zero: bool = False  # start at zero, for the last layer beside something that already works
    edge: bool = False  # continue x by its border instead of zeros
    causal: bool = False  # see only what comes before a position, row by row
    dtype: str = "float32"  # of the arithmetic and of the result; kernel and bias are float32
    fake: bool = False  # round x and the kernel as the frozen layer will, 8 bits each (models.freeze)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.zeros if self.zero else _flat_lecun_normal
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.causal:
            kernel = kernel * causal_mask(self.size)
        if self.zero:
            kernel, bias = ZERO_UNIT * kernel, ZERO_UNIT * bias
        if self.fake:
            largest = jnp.max(jnp.abs(kernel), axis=(0, 1, 2), keepdims=True)
            kernel = fake_quantise(kernel, -largest, largest, steps=254)
            x = fake_quantise(x, jnp.minimum(jnp.min(x), 0), jnp.maximum(jnp.max(x), 1e-3))
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        if not self.edge:
            return add_bias(convolve(x, kernel), bias)
        reach, (height, width) = self.size // 2, x.shape[1:3]
        x = extend(x, (reach, reach), (reach, reach))
        return add_bias(convolve(x, kernel)[:, reach : reach + height, reach : reach + width], bias)


def _flat_lecun_normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Flax's `lecun_normal`, the same numbers, drawn as a matrix: on a CPU that compiles ten times as fast."""
    return nn.initializers.lecun_normal()(key, (math.prod(shape[:-1]), shape[-1])).reshape(shape)


class GDN(nn.Module):
    """Generalised divisive normalisation (Ballé et al. 2016): y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)."""

    inverse: bool = False  # multiply instead of divide, in the synthesis

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        # Squares keep beta and gamma positive; the small offset keeps their gradients alive at zero.
        beta = self.param("beta_root", nn.initializers.ones, (channels,)) ** 2
        start = lambda *_: jnp.sqrt(0.1 * jnp.eye(channels) + 1e-4)  # noqa: E731
        gamma = self.param("gamma_root", start) ** 2
        return gdn(x, beta + 1e-6, gamma.astype(x.dtype), self.inverse)


def nonlinearity(kind: str, inverse: bool = False) -> Callable[[Array], Array]:
    """A fresh GDN (inside a compact module) or GELU."""
    return GDN(inverse) if kind == "gdn" else nn.gelu


def rematerialised(network: nn.Module, stage: Callable, x: Array, *static) -> Array:
    """stage(network, x, *static), a part of the network's call. Where `network.remat` is set, of all its activations x
    alone is kept for the gradient, and the others are computed again."""
    numbers = tuple(range(2, 2 + len(static)))
    return (nn.remat(stage, static_argnums=numbers) if network.remat else stage)(network, x, *static)


class Residual(nn.Module):
    """x + conv(f(conv(f(x)))): (B, H, W, C) -> the same, of the same type."""

    kind: str
    inverse: bool = False
    fake: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        layer = {"features": x.shape[-1], "fake": self.fake, "dtype": x.dtype.name}
        hidden = Conv(**layer)(nonlinearity(self.kind, self.inverse)(x))
        return x + Conv(**layer)(nonlinearity(self.kind, self.inverse)(hidden))


class Analysis(nn.Module):
    """x (B, H, W, 3) around zero -> (B, H/stride, W/stride, channels)."""

    transform: str
    activation: str
    stride: int
    filters: int
    latent_filters: int
    channels: int
    zero: bool
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, weights: Array | None = None) -> Array:
        def stage(self, x: Array, number: int, block: int) -> Array:
            x = Conv(self.filters, dtype=self.dtype)(space_to_depth(x, block))
            if weights is not None:
                shift = self.param(f"shift_{number}", nn.initializers.zeros, (KNOTS, self.filters))
                x = x + at(shift, weights).astype(x.dtype)
            return Residual(self.activation)(x) if self.transform == "residual" else nonlinearity(self.activation)(x)

        *early, last = stages(self.transform, self.stride)
        for number, block in enumerate(early):
            x = rematerialised(self, stage, x, number, block)
        x = space_to_depth(x, last)
        if self.transform == "residual":
            x = nonlinearity(self.activation)(Conv(self.latent_filters, dtype=self.dtype)(x))
        return Conv(self.channels, zero=self.zero)(x)


class Synthesis(nn.Module):
    """(B, h, w, channels) -> x_hat (B, stride h, stride w, 3) around zero."""

    transform: str
    activation: str
    stride: int
    filters: int
    latent_filters: int
    fake: bool = False
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, z: Array) -> Array:
        def stage(self, x: Array, block: int) -> Array:
            x = depth_to_space(Conv(self.filters * block * block, **layer)(x), block)
            if self.transform == "residual":
                return Residual(self.activation, inverse=True, fake=self.fake)(x)
            return nonlinearity(self.activation, inverse=True)(x)

        layer = {"fake": self.fake, "dtype": self.dtype}
        first, *rest = stages(self.transform, self.stride)
        x = z
        if self.transform == "residual":
            x = nonlinearity(self.activation, inverse=True)(Conv(self.latent_filters, **layer)(x))
        for block in reversed(rest):
            x = rematerialised(self, stage, x, block)
        return depth_to_space(Conv(3 * first * first, fake=self.fake)(x), first)


class Refinement(nn.Module):
    """A picture (B, H, W, 3) around zero, as the linear path has drawn it -> what to add to it.

    It sees pixels, so that it corrects blocks and noise after a few hundred steps; a network that sees z_1 alone must
    first learn the inverse of the linear path.
    """

    activation: str
    stride: int
    filters: int
    fake: bool = False
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, weights: Array | None = None) -> Array:
        def residual(self, x: Array) -> Array:
            return Residual(self.activation, inverse=True, fake=self.fake)(x)

        block = refined_block(self.stride)
        # Samples of a photo are around 1/4; networks like numbers around 1.
        x = Conv(self.filters, fake=self.fake, dtype=self.dtype)(4 * space_to_depth(x, block))
        if weights is not None:
            shift = self.param("shift_0", nn.initializers.zeros, (KNOTS, self.filters))
            x = x + at(shift, weights).astype(x.dtype)
        for _ in range(REFINEMENTS):
            x = rematerialised(self, residual, x)
        x = nonlinearity(self.activation, inverse=True)(x)
        return depth_to_space(Conv(3 * block**2, zero=True, fake=self.fake)(x), block)


class LevelAnalysis(nn.Module):
    """z_l (B, h, w, C) -> z_{l+1} (B, ceil(h/stride), ceil(w/stride), channels).

    The maps of deep levels are a few positions wide, and a crop's fewer still: continued by zeros, almost every
    position of a crop would be a corner, and the inside of a photo something never trained.
    """

    stride: int
    filters: int
    latent_filters: int
    channels: int
    zero: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        layer = {"edge": True, "dtype": self.dtype}
        x = nn.gelu(Conv(self.latent_filters, **layer)(pad_to_multiple(z, self.stride)))
        for block in stages("plain", self.stride):
            x = nn.gelu(Conv(self.filters, **layer)(space_to_depth(x, block)))
        return Conv(self.channels, zero=self.zero, edge=True)(x)


class LevelSynthesis(nn.Module):
    """z_{l+1} (B, h, w, C) -> parameters of p(z_l | z_{l+1}), (B, stride h, stride w, channels), zero at the start.

    And what the last layer sees, (B, stride h, stride w, filters).
    """

    stride: int
    filters: int
    latent_filters: int
    channels: int
    fake: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z: Array) -> tuple[Array, Array]:
        layer = {"edge": True, "fake": self.fake, "dtype": self.dtype}
        x = nn.gelu(Conv(self.latent_filters, **layer)(z))
        for block in stages("plain", self.stride):
            x = nn.gelu(depth_to_space(Conv(self.filters * block * block, **layer)(x), block))
        return Conv(self.channels, zero=True, edge=True, fake=self.fake)(x), x


class Context(nn.Module):
    """What z_2 says (B, h, w, filters), and what is decoded of z_1 (B, h, w, C) or None -> changes of the parameters of
    p(z_1 | z_2, z_1 decoded before), (B, h, w, channels), zero at the start.

    The networks of Minnen et al. 2018 (the context model, of that size, and the entropy parameters, 1 x 1).
    """

    size: int
    latent_filters: int
    channels: int
    causal: bool
    fake: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, told: Array, seen: Array | None) -> Array:
        layer = {"features": self.latent_filters, "fake": self.fake, "dtype": self.dtype}
        x = Conv(size=1, name="Hyper", **layer)(told)
        if seen is not None:
            x = x + Conv(size=self.size, causal=self.causal, name="Seen", **layer)(seen)
        x = nn.gelu(Conv(size=1, **layer)(nn.gelu(x)))
        return Conv(self.channels, size=1, zero=True, fake=self.fake)(x)

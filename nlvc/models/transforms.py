"""Analysis, synthesis and the transforms between levels: photos to latents and back, by convolutions.

Every change of resolution is space-to-depth before, or depth-to-space after, a 3x3 convolution. That covers the same
linear maps as strided and transposed convolutions of size 5 (and 6), whose gradients are slow on CPUs.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


def space_to_depth(x: Array, block: int) -> Array:
    """(B, H, W, C) -> (B, H/block, W/block, block^2 C); H and W must be multiples of block."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, block * block * channels)


def depth_to_space(x: Array, block: int) -> Array:
    """(B, h, w, block^2 C) -> (B, block h, block w, C): the inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, block, block, channels // (block * block))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, -1)


def pad_to_multiple(x: Array, block: int) -> Array:
    """(B, H, W, C) with its last row and column repeated until H and W are multiples of block."""
    rows, columns = -x.shape[1] % block, -x.shape[2] % block
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else x


def convolve(x: Array, kernel: Array) -> Array:
    """(B, H, W, C) * (k, k, C, C') -> (B, H, W, C'), k odd, zeros outside: the native convolution or one dot.

    On CPUs the dot form trains up to twice as fast (`benchmarks/train_step.py` measures both).
    """
    if kernel.shape[0] == 1:
        return jnp.dot(x, kernel[0, 0])
    if jax.default_backend() == "cpu":
        return convolve_as_dot(x, kernel)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def convolve_as_dot(x: Array, kernel: Array) -> Array:
    """The same by one matrix product of k column-shifted copies with k rows of output, summed after a row shift.

    The copies cost k times the input, not the k^2 of im2col, and the product is large enough to run at its own speed.
    Its own gradient, again two such products, halves the time of a training step: XLA's copies the shifts once more.
    """
    size, _, channels, features = kernel.shape
    batch, height, width, _ = x.shape
    matrix = kernel.transpose(1, 2, 0, 3).reshape(size * channels, size * features)
    x = lax.optimization_barrier(x)
    rows = jnp.dot(_shifted(x, size, axis=2), matrix).reshape(batch, height, width, size, features)
    reach = size // 2
    rows = jnp.pad(rows, ((0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)))
    return sum(rows[:, shift : shift + height, :, shift] for shift in range(size))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve_as_dot(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    gradient = lax.optimization_barrier(gradient)
    size, _, channels, features = kernel.shape
    to_x = convolve_as_dot(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    rows = _shifted(gradient, size, axis=1)
    to_matrix = lax.dot_general(_shifted(x, size, axis=2), rows, (((0, 1, 2), (0, 1, 2)), ((), ())))
    # Row shifts of the gradient run against those of the kernel.
    to_kernel = to_matrix.reshape(size, channels, size, features)[:, :, ::-1].transpose(2, 0, 1, 3)
    return to_x, to_kernel


convolve_as_dot.defvjp(_forward, _backward)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """(B, H, W, C) + (C,). Its gradient sums by a dot with ones: a plain sum recomputes what it is fused with."""
    return x + bias.reshape(1, 1, 1, -1)


def _sum_to_bias(_, gradient: Array) -> tuple[Array, Array]:
    flat = gradient.reshape(-1, gradient.shape[-1])
    return gradient, jnp.dot(jnp.ones((flat.shape[0],), flat.dtype), flat)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _sum_to_bias)


def _shifted(x: Array, size: int, axis: int) -> Array:
    """(B, H, W, C) -> (B, H, W, size C): copies of x shifted along an axis by -reach..reach, zeros outside."""
    reach, length = size // 2, x.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (reach, reach)
    padded = jnp.pad(x, padding)
    return jnp.concatenate(
        [lax.slice_in_dim(padded, shift, shift + length, axis=axis) for shift in range(size)], axis=-1
    )


ZERO_UNIT = 0.05
"""What the weights of a layer that starts at zero are counted in. Adam moves the weights of its thousand inputs by the
learning rate all at once: in units of 1 that is far more than the errors which are left to correct."""


class Conv(nn.Module):
    """A convolution with bias: (B, H, W, C) -> (B, H, W, features)."""

    features: int
    size: int = 3
    zero: bool = False  # start at zero, for the last layer beside something that already works
    edge: bool = False  # continue x by its border instead of zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.zeros if self.zero else _flat_lecun_normal
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.zero:
            kernel, bias = ZERO_UNIT * kernel, ZERO_UNIT * bias
        if not self.edge:
            return add_bias(convolve(x, kernel), bias)
        reach, (height, width) = self.size // 2, x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
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
        power = add_bias(jnp.dot(x * x, gamma), beta + 1e-6)
        return x * (jnp.sqrt(power) if self.inverse else lax.rsqrt(power))


def nonlinearity(kind: str, inverse: bool = False) -> Callable[[Array], Array]:
    """A fresh GDN (inside a compact module) or GELU."""
    return GDN(inverse) if kind == "gdn" else nn.gelu


class Residual(nn.Module):
    """x + conv(f(conv(f(x)))): (B, H, W, C) -> the same."""

    kind: str
    inverse: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = Conv(x.shape[-1])(nonlinearity(self.kind, self.inverse)(x))
        return x + Conv(x.shape[-1])(nonlinearity(self.kind, self.inverse)(hidden))


def stages(transform: str, stride: int) -> list[int]:
    """Factors of the stride, photo side first: halvings, or (residual) a quarter at once and then halvings."""
    halvings = int(math.log2(stride))
    if transform == "residual" and halvings >= 2:
        return [4] + [2] * (halvings - 2)
    return [2] * halvings


class Analysis(nn.Module):
    """x (B, H, W, 3) around zero -> (B, H/stride, W/stride, channels)."""

    transform: str
    activation: str
    stride: int
    filters: int
    latent_filters: int
    channels: int
    zero: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *early, last = stages(self.transform, self.stride)
        for block in early:
            x = Conv(self.filters)(space_to_depth(x, block))
            x = Residual(self.activation)(x) if self.transform == "residual" else nonlinearity(self.activation)(x)
        x = space_to_depth(x, last)
        if self.transform == "residual":
            x = nonlinearity(self.activation)(Conv(self.latent_filters)(x))
        return Conv(self.channels, zero=self.zero)(x)


class Synthesis(nn.Module):
    """(B, h, w, channels) -> x_hat (B, stride h, stride w, 3) around zero."""

    transform: str
    activation: str
    stride: int
    filters: int
    latent_filters: int
    zero: bool

    @nn.compact
    def __call__(self, z: Array) -> Array:
        first, *rest = stages(self.transform, self.stride)
        x = z
        if self.transform == "residual":
            x = nonlinearity(self.activation, inverse=True)(Conv(self.latent_filters)(x))
        for block in reversed(rest):
            x = depth_to_space(Conv(self.filters * block * block)(x), block)
            inverse = {"inverse": True}
            if self.transform == "residual":
                x = Residual(self.activation, **inverse)(x)
            else:
                x = nonlinearity(self.activation, **inverse)(x)
        return depth_to_space(Conv(3 * first * first, zero=self.zero)(x), first)


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

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = nn.gelu(Conv(self.latent_filters, edge=True)(pad_to_multiple(z, self.stride)))
        for block in stages("plain", self.stride):
            x = nn.gelu(Conv(self.filters, edge=True)(space_to_depth(x, block)))
        return Conv(self.channels, zero=self.zero, edge=True)(x)


class LevelSynthesis(nn.Module):
    """z_{l+1} (B, h, w, C) -> parameters of p(z_l | z_{l+1}), (B, stride h, stride w, channels), zero at the start."""

    stride: int
    filters: int
    latent_filters: int
    channels: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = nn.gelu(Conv(self.latent_filters, edge=True)(z))
        for block in stages("plain", self.stride):
            x = nn.gelu(depth_to_space(Conv(self.filters * block * block, edge=True)(x), block))
        return Conv(self.channels, zero=True, edge=True)(x)

"""What the transforms are made of, as plain functions: changes of resolution and convolutions. No Flax.

Every change of resolution is space-to-depth before, or depth-to-space after, a 3x3 convolution. That covers the same
linear maps as strided and transposed convolutions of size 5 (and 6), whose gradients are slow on CPUs.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

ENERGY_FLOOR = 0.125
"""Standard deviation, in bins, below which an element is nearly always 0 and its energy says nothing."""

REFINEMENTS = 2
"""Residual blocks of a refinement."""


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
    return extend(x, (0, -x.shape[1] % block), (0, -x.shape[2] % block))


def extend(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """(B, H, W, C) with its first and last row, and column, repeated so many times before and after it.

    The gradient of `jnp.pad` touches the first photo of the batch, for which devices that share it would need messages.
    """
    for axis, (before, after) in ((1, rows), (2, columns)):
        if before or after:
            first, last = (lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (0, x.shape[axis] - 1))
            parts = jnp.repeat(first, before, axis=axis), x, jnp.repeat(last, after, axis=axis)
            x = jnp.concatenate(parts, axis=axis)
    return x


def convolve(x: Array, kernel: Array) -> Array:
    """(B, H, W, C) * (k, k, C, C') -> (B, H, W, C'), k odd, zeros outside: the native convolution or one dot.

    On CPUs the dot form trains up to twice as fast (`benchmarks/train_step.py` measures both).
    """
    if kernel.shape[0] == 1:
        return jnp.dot(x, kernel[0, 0])
    if jax.default_backend() == "cpu":
        return convolve_as_dot(x, kernel)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve_inside(x: Array, kernel: Array, *, as_dot: bool, dtype=None) -> Array:
    """(B, H, W, C) * (k, k, C, C') -> (B, H-k+1, W-k+1, C') of dtype, only where all neighbours are known.

    as_dot: by one matrix product as in `convolve_as_dot`, without a gradient of its own; or the native convolution.
    """
    size, _, channels, features = kernel.shape
    if not as_dot or size == 1:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=dtype
        )
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    columns = jnp.concatenate([x[:, :, shift : shift + width] for shift in range(size)], axis=-1)
    matrix = kernel.transpose(1, 2, 0, 3).reshape(size * channels, size * features)
    rows = jnp.dot(lax.optimization_barrier(columns), matrix, preferred_element_type=dtype)
    parts = jnp.split(rows, size, axis=-1)
    return sum(part[:, shift : shift + height] for shift, part in enumerate(parts))


@jax.custom_vjp
def convolve_as_dot(x: Array, kernel: Array) -> Array:
    """The same by matrix products of k column-shifted copies.

    The copies cost k times the input, not the k^2 of im2col, and the products are large enough to run at their own
    speed. Rows are shifted where there are fewer channels: k rows of output of one product are summed after a shift, or
    k products of shifted rows of input are summed, whose result no later step computes again. The gradient is made of
    the same products; XLA's own copies the shifts once more and takes twice the time. Operands of bfloat16 are
    summed in float32 and rounded once.
    """
    size, _, channels, features = kernel.shape
    batch, height, width, _ = x.shape
    reach, columns = size // 2, _shifted(lax.optimization_barrier(x), size, axis=2)
    if features > channels:
        parts = (_dot(rows, matrix) for rows, matrix in zip(_rows(columns, size), _matrices(kernel), strict=True))
        return sum(parts).astype(x.dtype)
    matrix = kernel.transpose(1, 2, 0, 3).reshape(size * channels, size * features)
    rows = _dot(columns, matrix).reshape(batch, height, width, size, features)
    rows = jnp.pad(rows, ((0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)))
    return sum(rows[:, shift : shift + height, :, shift] for shift in range(size)).astype(x.dtype)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve_as_dot(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    gradient = lax.optimization_barrier(gradient)
    size, _, channels, features = kernel.shape
    to_x = convolve_as_dot(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    columns = _shifted(x, size, axis=2)
    if features > channels:
        rows = [_sum_of_products(rows, gradient) for rows in _rows(columns, size)]
        return to_x, jnp.stack(rows).reshape(kernel.shape).astype(kernel.dtype)
    to_matrix = _sum_of_products(columns, _shifted(gradient, size, axis=1))
    # Row shifts of the gradient run against those of the kernel.
    to_kernel = to_matrix.reshape(size, channels, size, features)[:, :, ::-1].transpose(2, 0, 1, 3)
    return to_x, to_kernel.astype(kernel.dtype)


convolve_as_dot.defvjp(_forward, _backward)


def _dot(x: Array, matrix: Array) -> Array:
    """(..., C) * (C, C') -> (..., C'), float32."""
    return jnp.dot(x, matrix, preferred_element_type=jnp.float32)


def _sum_of_products(x: Array, y: Array) -> Array:
    """(B, H, W, C), (B, H, W, C') -> (C, C'), float32, summed over all positions."""
    everywhere = (((0, 1, 2), (0, 1, 2)), ((), ()))
    return lax.dot_general(x, y, everywhere, preferred_element_type=jnp.float32)


def causal_mask(size: int) -> np.ndarray:
    """(size, size, 1, 1): 1 where a kernel sees what comes before its middle, row by row; 0 there and after it."""
    mask = np.arange(size * size) < size * size // 2
    return mask.astype(np.float32).reshape(size, size, 1, 1)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """(B, H, W, C) + (C,). Its gradient sums by a dot with ones: a plain sum recomputes what it is fused with."""
    return x + bias.reshape(1, 1, 1, -1)


def _sum_to_bias(_, gradient: Array) -> tuple[Array, Array]:
    flat = gradient.reshape(-1, gradient.shape[-1])
    return gradient, _dot(jnp.ones((flat.shape[0],), flat.dtype), flat).astype(gradient.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _sum_to_bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def gdn(x: Array, beta: Array, gamma: Array, inverse: bool) -> Array:
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ji x_j^2), or times it. x (B, H, W, C), beta (C,), gamma (C, C).

    Its gradient is written out: XLA's own recomputes the powers in every place that needs them. x and gamma may be
    bfloat16, and so is the result then; powers and their roots are float32.
    """
    return _normalise(x, beta, gamma, inverse)[0]


def _normalise(x: Array, beta: Array, gamma: Array, inverse: bool):
    power = _dot(x * x, gamma) + beta.reshape(1, 1, 1, -1)
    return (x * (jnp.sqrt(power) if inverse else lax.rsqrt(power))).astype(x.dtype), (x, power, gamma)


def _normalise_backward(inverse: bool, saved, gradient: Array) -> tuple[Array, Array, Array]:
    x, power, gamma = saved
    root = lax.rsqrt(power)
    to_power = gradient * x * (0.5 * root if inverse else -0.5 * root**3)
    to_x = gradient * (power * root if inverse else root) + 2 * x * _dot(to_power.astype(x.dtype), gamma.T)
    rows = to_power.reshape(-1, x.shape[-1])
    to_beta = jnp.dot(jnp.ones(len(rows), rows.dtype), rows)
    to_gamma = _dot((x * x).reshape(rows.shape).T, rows.astype(x.dtype))
    return to_x.astype(x.dtype), to_beta, to_gamma.astype(gamma.dtype)


gdn.defvjp(_normalise, _normalise_backward)


def _rows(x: Array, size: int) -> list[Array]:
    """Copies of x (B, H, W, C) shifted along H by -reach..reach, zeros outside."""
    padded = jnp.pad(x, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    return [lax.slice_in_dim(padded, shift, shift + x.shape[1], axis=1) for shift in range(size)]


def _matrices(kernel: Array) -> Array:
    """(k, k, C, C') -> (k, k C, C'): what each row of the kernel does to column-shifted copies."""
    size, _, channels, features = kernel.shape
    return kernel.reshape(size, size * channels, features)


def _shifted(x: Array, size: int, axis: int) -> Array:
    """(B, H, W, C) -> (B, H, W, size C): copies of x shifted along an axis by -reach..reach, zeros outside."""
    reach, length = size // 2, x.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (reach, reach)
    padded = jnp.pad(x, padding)
    return jnp.concatenate(
        [lax.slice_in_dim(padded, shift, shift + length, axis=axis) for shift in range(size)], axis=-1
    )


def refined_block(stride: int) -> int:
    """Pixels, in each direction, that a refinement sees as one position."""
    return min(4, stride)


def stages(transform: str, stride: int) -> list[int]:
    """Factors of the stride, photo side first: halvings, or (residual) a quarter at once and then halvings."""
    halvings = int(math.log2(stride))
    if transform == "residual" and halvings >= 2:
        return [4] + [2] * (halvings - 2)
    return [2] * halvings


def log_energy(z: Array, stride: int) -> Array:
    """(B, h, w, C) in bins -> the logarithm of each channel's root mean square in blocks of stride x stride.

    (B, ceil(h/stride), ceil(w/stride), C); edges are continued.
    """
    z = pad_to_multiple(z, stride)
    batch, height, width, channels = z.shape
    blocks = (z * z).reshape(batch, height // stride, stride, width // stride, stride, channels)
    return 0.5 * jnp.log(jnp.mean(blocks, axis=(2, 4)) + ENERGY_FLOOR**2)

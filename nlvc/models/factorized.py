"""The learned, factorised prior of Ballé et al. 2018 (arXiv 1802.01436, appendix 6.1), with the verbs of `priors`."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import logit

from nlvc.models.priors import Verbs, as_float, logistic_log_difference

Array = jax.Array

_FARTHEST = 1e6


def init_factorized(
    key: Array, channels: int, filters: tuple[int, ...] = (3, 3, 3), init_scale: float | Array = 10.0
) -> dict:
    """Starting parameters of a `Factorized` prior (Ballé et al. 2018, appendix 6.1): logistics about 0.

    A Flax initialiser: `Factorized(**self.param("prior", init_factorized, channels))`.

    Args:
      key: a JAX random key.
      channels: C >= 1, the length of the latent's last axis.
      filters: widths of the hidden layers of each channel's monotone network; empty gives a logistic.
      init_scale: > 0, the scale of the logistic, in bins; or (C,), that of each channel.

    Returns:
      {"layers": layers}, see `Factorized`; float32.

    Raises:
      ValueError: channels, a filter or init_scale is not positive.
    """
    if channels < 1 or any(width < 1 for width in filters) or not np.all(np.asarray(init_scale) > 0):
        raise ValueError(
            "a factorised prior needs positive sizes; "
            f"got channels={channels}, filters={tuple(filters)}, init_scale={init_scale}"
        )
    widths = (1, *filters, 1)
    depth = len(widths) - 1
    slope = jnp.broadcast_to(jnp.asarray(init_scale, jnp.float32) ** (-1.0 / depth), (channels,)).reshape(-1, 1, 1)
    layers = {}
    for k in range(depth):
        fan_in, fan_out = widths[k], widths[k + 1]
        column = (channels, fan_out, 1)
        layers[str(k)] = {
            # softplus of this is slope / fan_out: the slopes of all layers together are 1 / init_scale.
            "matrix": jnp.broadcast_to(jnp.log(jnp.expm1(slope / fan_out)), (channels, fan_out, fan_in)),
            # Not alike, or what is trained of the hidden units would be.
            "bias": jax.random.uniform(jax.random.fold_in(key, k), column, jnp.float32, -0.5, 0.5),
        }
        if k < depth - 1:
            layers[str(k)]["factor"] = jnp.zeros(column, jnp.float32)
    median = Factorized(layers)._logits(jnp.zeros((channels, 1, 1)))
    layers[str(depth - 1)]["bias"] = layers[str(depth - 1)]["bias"] - median
    return {"layers": layers}


def _product(matrix: Array, columns: Array) -> Array:
    # Accelerators round the factors of an ordinary float32 product to 10 bits or fewer.
    return jnp.matmul(matrix, columns, precision=jax.lax.Precision.HIGHEST)


class Factorized(Verbs, struct.PyTreeNode):
    """One learned density per channel, the same at every position (Ballé et al. 2018, appendix 6.1).

    cdf = sigmoid(f_K(... f_1(z))), f_k(x) = g_k(softplus(matrix_k) x + bias_k), g_k(x) = x + tanh(factor_k) tanh(x)
    and g_K the identity. Every f_k is strictly increasing, hence so is the cdf.

    Attributes:
      layers: {"0": {"matrix": (C, r_1, 1), "bias": (C, r_1, 1), "factor": (C, r_1, 1)}, "1": {"matrix": (C, r_2, r_1),
        ...}, ...}, the last without a factor and with one row. All real values are allowed.

    z has its channels last, (..., C); another C is a ValueError.
    """

    layers: Mapping[str, Mapping[str, Array]]

    @property
    def channels(self) -> int:
        return self.layers["0"]["bias"].shape[0]

    def _in_order(self) -> list[Mapping[str, Array]]:
        return [self.layers[str(k)] for k in range(len(self.layers))]

    def _columns(self, z: Array) -> Array:
        """(..., C) -> (C, 1, N)."""
        z = as_float(z)
        if z.ndim < 1 or z.shape[-1] != self.channels:
            raise ValueError(f"a factorised prior of {self.channels} channels got a latent of shape {z.shape}; "
                             "its last axis must be the channels")  # fmt: skip
        return jnp.moveaxis(z, -1, 0).reshape(self.channels, 1, -1)

    def _latent(self, columns: Array, shape: tuple[int, ...]) -> Array:
        """(C, 1, N) -> shape, which is (..., C)."""
        return jnp.moveaxis(columns.reshape(self.channels, *shape[:-1]), 0, -1)

    def _logits(self, columns: Array) -> Array:
        for layer in self._in_order():
            columns = _product(jax.nn.softplus(layer["matrix"]), columns) + layer["bias"]
            if "factor" in layer:
                columns = columns + jnp.tanh(layer["factor"]) * jnp.tanh(columns)
        return columns

    def _logits_of(self, z: Array) -> Array:
        return self._latent(self._logits(self._columns(z)), jnp.shape(z))

    def cdf(self, z: Array) -> Array:
        """P(Z <= z), in [0, 1]; of z's shape (..., C)."""
        return jax.nn.sigmoid(self._logits_of(z))

    def log_cdf(self, z: Array) -> Array:
        """ln P(Z <= z), <= 0, finite in the far tails; of z's shape (..., C)."""
        return jax.nn.log_sigmoid(self._logits_of(z))

    def log_survival(self, z: Array) -> Array:
        """ln P(Z > z), <= 0, finite in the far tails; of z's shape (..., C)."""
        return jax.nn.log_sigmoid(-self._logits_of(z))

    def log_mass(self, z: Array) -> Array:
        """ln P(z - 1/2 < Z <= z + 1/2) <= 0; of z's shape (..., C), finite with finite gradients."""
        lower = self._columns(z) - 0.5
        width = jnp.ones_like(lower)
        # The bin goes through the network as (lower edge, width): the difference of two edges' logits at the end would
        # have lost a narrow bin's width. tanh(l + w) - tanh(l) = tanh(w) (1 - tanh(l + w) tanh(l)).
        for layer in self._in_order():
            slopes = jax.nn.softplus(layer["matrix"])
            lower, width = _product(slopes, lower) + layer["bias"], _product(slopes, width)
            if "factor" in layer:
                factor, lower_tanh = jnp.tanh(layer["factor"]), jnp.tanh(lower)
                bend = jnp.tanh(width) * (1.0 - jnp.tanh(lower + width) * lower_tanh)
                lower, width = lower + factor * lower_tanh, width + factor * bend
        width = jnp.maximum(width, jnp.finfo(width.dtype).tiny)
        return self._latent(logistic_log_difference(lower, lower + width, width), jnp.shape(z))

    def quantile(self, p: Array | float) -> Array:
        """The z with cdf(z) = p, by bisection within +-1e6; no gradient.

        Args:
          p: probabilities in [0, 1], broadcasting to (..., C): `quantile(0.5)` is the C medians.

        Returns:
          Array (..., C); -inf at p = 0, inf at p = 1.
        """
        p = as_float(p)
        p = jnp.broadcast_to(p, jnp.broadcast_shapes(p.shape, (self.channels,)))
        target = logit(self._columns(p))
        model = jax.lax.stop_gradient(self)

        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            above = model._logits(middle) > target
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        start = jnp.full_like(target, -_FARTHEST), jnp.full_like(target, _FARTHEST)
        low, high = jax.lax.fori_loop(0, 60, halve, start)
        found = jnp.where(jnp.isinf(target), target, 0.5 * (low + high))
        return jax.lax.stop_gradient(self._latent(found, p.shape))

"""Multiply-accumulates against those counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from macs import macs, per_pixel

from nlvc.config import tiny


def test_a_matrix_product():
    assert macs(jnp.dot, np.zeros((5, 7)), np.zeros((7, 3))) == 5 * 7 * 3


def test_a_convolution():
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(  # noqa: E731
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert macs(convolve, np.zeros((1, 8, 6, 3)), np.zeros((5, 5, 3, 4))) == 4 * 3 * 4 * 25 * 3


def test_inside_other_programs():
    twice = jax.jit(lambda x: jax.lax.scan(lambda y, _: (y @ y, None), x, length=4)[0])
    assert macs(twice, np.zeros((3, 3))) == 4 * 27


def test_a_model_by_hand():
    """Plain transforms at stride 2: one convolution down, one up, of sizes that the modules say themselves."""
    config = tiny(L=1, strides=(2,), transform="plain", linear_path=False, channels=6, filters=4, latent_filters=5)
    compress, decompress, parameters = per_pixel(config, side=64)
    params = jax.eval_shape(lambda: _params(config))
    # Every kernel of such a model is used at half the side, a quarter of the pixels; GDN's matrices as well.
    weights = {part: sum(leaf.size for leaf in jax.tree.leaves(params[part]) if leaf.ndim > 1) for part in params}
    assert (compress, decompress) == (weights["analysis"] / 4, weights["synthesis"] / 4)
    assert parameters == sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_a_context_costs_both_sides():
    plain, serial = (per_pixel(tiny(L=2, context=context), side=128) for context in ("none", "spatial"))
    assert serial[0] - plain[0] == serial[1] - plain[1] > 0


def _params(config):
    from nlvc.models.nested import NestedLatentModel

    key = jax.random.key(0)
    return NestedLatentModel(config).init(key, jnp.zeros((1, 64, 64, 3)), key)["params"]

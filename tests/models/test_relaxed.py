"""The frozen synthesis as a smooth function: nearly what the integers draw, and its gradient is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.image_codec.model import part
from nlvc.models import frozen
from nlvc.models.relaxed import Relaxed, between, squared_error

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG = np.random.default_rng(0)
KINDS = [
    {"L": 2},
    {"L": 1, "rate": "variable", "prior": "trainable-logistic"},
    {"L": 1, "activation": "gdn"},
    {"L": 2, "strides": (4, 2)},
]


@pytest.fixture(params=KINDS, ids=lambda fields: "-".join(map(str, fields.values())))
def synthesis(request, untrained):
    """(config, arrays of the frozen synthesis, z_1 in units with a margin, size of the picture)."""
    model = untrained(**request.param)
    if model.quality is not None:
        arrays = {**model.arrays, **{name: v[model.quality] for name, v in part(model.arrays, "rates").items()}}
    else:
        arrays = model.arrays
    config, margin = model.config, frozen.synthesis_margins(model.config)[0]
    z = RNG.normal(0, 20, (1, 4 + 2 * margin, 5 + 2 * margin, config.level_channels[0]))
    stride = config.level_strides[0]
    return config, part(arrays, "decoder/synthesis"), np.rint(z).astype(np.int32), (4 * stride, 5 * stride)


def test_it_is_the_integers_without_rounding(synthesis):
    config, arrays, z, _ = synthesis
    draw = lambda a, z: frozen.grey_levels(config, *frozen.synthesis(a(arrays), config, z))  # noqa: E731
    exact, smooth = (
        np.asarray(jax.jit(draw, static_argnums=0)(a, z.astype(kind)))
        for a, kind in ((frozen.Exact, np.int32), (Relaxed, np.float32))
    )
    assert smooth.shape == exact.shape and np.std(exact) > frozen.PIXEL_UNITS
    assert np.std(smooth - exact) < 0.05 * np.std(exact)
    assert np.any(smooth != np.rint(smooth))


def test_its_gradient_tells_where_the_error_goes(synthesis):
    config, arrays, z, (height, width) = synthesis
    target = RNG.integers(100, 156, (1, height, width, 3)).astype(np.uint8)
    counted = np.ones((1, height, width, 1), bool)
    value = lambda z: squared_error(config, arrays, z, (None, None), target, counted)  # noqa: E731
    slope, z = jax.jit(jax.value_and_grad(value)), z.astype(np.float32)
    before, gradient = slope(z)
    after, _ = slope(z - np.asarray(gradient) * float(0.01 * before / jnp.sum(gradient**2)))
    assert float(after) == pytest.approx(0.99 * float(before), rel=0.004)


def test_pixels_outside_the_picture_do_not_count(synthesis):
    config, arrays, z, (height, width) = synthesis
    target = np.full((1, height, width, 3), 128, np.uint8)
    counted = np.arange(width).reshape(1, 1, -1, 1) < width - 3
    counted = np.broadcast_to(counted, (1, height, width, 1))
    other = target.copy()
    other[:, :, -3:] = 0
    error = jax.jit(lambda *photo: squared_error(config, arrays, z.astype(np.float32), (None, None), *photo))
    few, same, all_ = (
        float(error(photo, mask))
        for photo, mask in ((target, counted), (other, counted), (target, np.ones_like(counted)))
    )
    assert few == same < all_


def test_a_table_is_read_between_its_entries():
    table = jnp.asarray([0.0, 10.0, 40.0])
    places = jnp.asarray([0.0, 0.25, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(between(table, places), [0, 2.5, 10, 25, 40])

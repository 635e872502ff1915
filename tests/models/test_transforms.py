"""The convolution against JAX's own, changes of resolution against their definition, and shapes of the transforms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from nlvc.config import tiny
from nlvc.models.layers import (
    add_bias,
    convolve,
    convolve_as_dot,
    convolve_inside,
    depth_to_space,
    pad_to_multiple,
    space_to_depth,
    stages,
)
from nlvc.models.nested import NestedLatentModel
from nlvc.models.transforms import (
    GDN,
    ZERO_UNIT,
    Analysis,
    Conv,
    LevelAnalysis,
    LevelSynthesis,
    Refinement,
    Residual,
    Synthesis,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)
WIDTHS = {"filters": 4, "latent_filters": 5}


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shapes_of(module, *shape):
    """Shape of a module's output, or of each, without computing it."""
    found = jax.eval_shape(lambda x: module.init_with_output(KEY, x)[0], jax.ShapeDtypeStruct(shape, jnp.float32))
    return jax.tree.map(lambda x: x.shape, found)


def random_params(module, *inputs):
    """Parameters of the right shapes; drawn by NumPy, because compiling an initialiser takes longer than all else."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), jax.eval_shape(module.init, KEY, *inputs)
    )


# --- The convolution ---


def native(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.jit
def both(x, kernel, weight):
    """(value, gradients of sum(value * weight)) of the convolution as a dot, and of the native one."""
    results = []
    for function in (convolve_as_dot, native):
        value, pull = jax.vjp(function, x, kernel)
        results.append((value, *pull(weight)))
    return results


# Odd shapes, and kernels that reach beyond the whole picture.
@pytest.mark.parametrize(
    ("size", "shape"), [(1, (2, 5, 7, 3)), (3, (2, 5, 7, 3)), (5, (2, 5, 7, 3)), (3, (1, 1, 1, 2)), (5, (1, 2, 9, 1))]
)
def test_convolution_and_its_gradients_equal_the_native_ones(size, shape):
    x, kernel, weight = normal(*shape), normal(size, size, shape[-1], 4, seed=1), normal(*shape[:-1], 4, seed=2)
    for ours, theirs in zip(*both(x, kernel, weight), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_whichever_form_is_chosen_the_convolution_is_the_same(size):
    x, kernel = normal(2, 5, 7, 3), normal(size, size, 3, 4, seed=1)
    np.testing.assert_allclose(jax.jit(convolve)(x, kernel), native(x, kernel), rtol=2e-5, atol=2e-5)


def test_convolution_is_zero_outside():
    """A kernel that only looks up and left shifts the picture down and right."""
    x, kernel = normal(1, 3, 4, 1), np.zeros((3, 3, 1, 1), np.float32)
    kernel[0, 0] = 1
    shifted = np.asarray(jax.jit(convolve)(x, kernel))[0, :, :, 0]
    np.testing.assert_array_equal(shifted[1:, 1:], x[0, :-1, :-1, 0])
    assert not shifted[0].any() and not shifted[:, 0].any()


def test_bias_and_its_gradient():
    x, bias, weight = normal(2, 3, 5, 4), normal(4, seed=1), normal(2, 3, 5, 4, seed=2)

    @jax.jit
    def run(x, bias, weight):
        value, pull = jax.vjp(add_bias, x, bias)
        return value, *pull(weight)

    value, to_x, to_bias = run(x, bias, weight)
    np.testing.assert_array_equal(value, x + bias)
    np.testing.assert_array_equal(to_x, weight)
    np.testing.assert_allclose(to_bias, weight.sum(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)


def test_conv_is_convolution_and_bias():
    x = normal(2, 5, 7, 3)
    params = random_params(Conv(4), x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    expected = np.asarray(native(x, kernel)) + bias
    np.testing.assert_allclose(jax.jit(Conv(4).apply)(params, x), expected, rtol=2e-5, atol=2e-5)


def test_conv_can_continue_its_input_by_the_border():
    x = normal(2, 5, 7, 3)
    params = random_params(Conv(4, edge=True), x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    expected = np.asarray(native(padded, kernel))[:, 1:-1, 1:-1] + bias
    np.testing.assert_allclose(jax.jit(Conv(4, edge=True).apply)(params, x), expected, rtol=2e-5, atol=2e-5)


def test_a_last_layer_can_start_at_zero():
    params = jax.jit(Conv(4, zero=True).init)(KEY, normal(2, 5, 7, 3))["params"]
    assert not np.any(params["kernel"]) and not np.any(params["bias"])


def test_a_layer_that_started_at_zero_counts_its_weights_in_small_units():
    params, x = {"params": {"kernel": normal(1, 1, 3, 4), "bias": normal(4)}}, normal(2, 5, 7, 3)
    expected = ZERO_UNIT * np.asarray(Conv(4, size=1).apply(params, x))
    np.testing.assert_allclose(Conv(4, size=1, zero=True).apply(params, x), expected, rtol=1e-4, atol=1e-6)


# --- Changes of resolution. They only reshape, so NumPy arrays serve, which need no compilation. ---


@given(st.tuples(*[st.integers(1, 4)] * 5))
def test_space_to_depth_by_its_definition(sizes):
    batch, rows, columns, channels, block = sizes
    x = np.arange(batch * rows * columns * channels * block**2).reshape(batch, rows * block, columns * block, channels)
    packed = space_to_depth(x, block)
    assert packed.shape == (batch, rows, columns, block * block * channels)
    for down in range(block):
        for right in range(block):
            first = (down * block + right) * channels
            np.testing.assert_array_equal(packed[..., first : first + channels], x[:, down::block, right::block])
    np.testing.assert_array_equal(depth_to_space(packed, block), x)


def test_space_to_depth_of_jax_arrays_is_the_same():
    x = normal(1, 4, 6, 3)
    packed = jax.jit(space_to_depth, static_argnums=1)(x, 2)
    np.testing.assert_array_equal(packed, space_to_depth(x, 2))
    np.testing.assert_array_equal(jax.jit(depth_to_space, static_argnums=1)(packed, 2), x)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (8, 3), (4, 9)])
def test_padding_repeats_the_last_row_and_column(height, width):
    x = normal(2, height, width, 3)
    padded = pad_to_multiple(jnp.asarray(x), 4)
    assert padded.shape == (2, 4 * -(-height // 4), 4 * -(-width // 4), 3)
    rows, columns = (np.minimum(np.arange(n), last - 1) for n, last in zip(padded.shape[1:3], (height, width)))  # noqa: B905
    np.testing.assert_array_equal(padded, x[:, rows][:, :, columns])


def test_nothing_is_padded_where_nothing_is_missing():
    x = jnp.asarray(normal(1, 4, 8, 3))
    assert pad_to_multiple(x, 4) is x


# --- GDN ---


def gdn(inverse, x, beta_root, gamma_root):
    return GDN(inverse).apply({"params": {"beta_root": beta_root, "gamma_root": gamma_root}}, x)


jitted_gdn = jax.jit(gdn, static_argnums=0)
gradients_of_gdn = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.abs(gdn(*a))), argnums=(1, 2, 3)), static_argnums=0)
SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_by_its_formula(inverse):
    x, beta_root, gamma_root = 3 * normal(*SHAPE), normal(5, seed=1), normal(5, 5, seed=2)
    beta, gamma = np.square(beta_root, dtype=np.float64), np.square(gamma_root, dtype=np.float64).T
    # y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), and times it in the synthesis.
    wide = x.astype(np.float64)
    norm = np.sqrt(beta + np.einsum("ij,bhwj->bhwi", gamma, wide**2))
    expected = wide * norm if inverse else wide / norm
    np.testing.assert_allclose(jitted_gdn(inverse, x, beta_root, gamma_root), expected, rtol=1e-4, atol=1e-5)


def test_inverse_gdn_undoes_gdn_where_the_norm_does_not_depend_on_x():
    x, beta_root, gamma_root = normal(*SHAPE), np.arange(1, 6, dtype=np.float32), np.zeros((5, 5), np.float32)
    there = jitted_gdn(False, x, beta_root, gamma_root)
    np.testing.assert_allclose(there, x / beta_root, rtol=1e-5)
    np.testing.assert_allclose(jitted_gdn(True, there, beta_root, gamma_root), x, rtol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_starts_near_the_identity_with_every_parameter_alive(inverse):
    x = normal(*SHAPE)
    params = jax.jit(GDN(inverse).init)(KEY, x)["params"]
    beta_root, gamma_root = params["beta_root"], params["gamma_root"]
    np.testing.assert_allclose(jitted_gdn(inverse, 1e-3 * x, beta_root, gamma_root), 1e-3 * x, rtol=1e-4)
    for gradient in gradients_of_gdn(inverse, x, beta_root, gamma_root)[1:]:
        assert np.all(gradient)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_finite_where_its_parameters_are_zero(inverse):
    """Nothing keeps beta_root from passing through zero, and a flat photo makes x zero too."""
    zeros = np.zeros(SHAPE, np.float32), np.zeros(5, np.float32), np.zeros((5, 5), np.float32)
    for gradient in gradients_of_gdn(inverse, *zeros):
        assert np.all(np.isfinite(gradient))


# --- The transforms ---


@pytest.mark.parametrize("transform", ["plain", "residual"])
def test_stages_multiply_to_the_stride(transform):
    for stride in (1, 2, 4, 8, 16, 32, 64):
        factors = stages(transform, stride)
        assert np.prod(factors, dtype=int) == stride
    assert stages("plain", 16) == [2, 2, 2, 2] and stages("residual", 16) == [4, 2, 2]


def test_residual_block_keeps_the_shape_and_can_be_the_identity():
    x = normal(2, 5, 7, 3)
    block = Residual("gdn", inverse=True)
    params = random_params(block, x)
    params["params"]["Conv_1"] = jax.tree.map(np.zeros_like, params["params"]["Conv_1"])
    np.testing.assert_array_equal(jax.jit(block.apply)(params, x), x)


@pytest.mark.parametrize(
    ("transform", "activation", "stride"),
    [("plain", "gdn", s) for s in (2, 16)] + [("residual", "gelu", s) for s in (2, 4, 64)] + [("residual", "gdn", 8)],
)
def test_shapes_of_analysis_and_synthesis(transform, activation, stride):
    kind = {"transform": transform, "activation": activation, "stride": stride, **WIDTHS}
    assert shapes_of(Analysis(channels=6, zero=False, **kind), 2, 3 * stride, 2 * stride, 3) == (2, 3, 2, 6)
    assert shapes_of(Synthesis(**kind), 2, 3, 2, 6) == (2, 3 * stride, 2 * stride, 3)


@pytest.mark.parametrize("stride", [2, 4, 16])
@pytest.mark.parametrize("activation", ["gdn", "gelu"])
def test_a_refinement_keeps_the_shape_and_adds_nothing_at_first(activation, stride):
    network, x = Refinement(activation, stride, filters=5), normal(2, 2 * stride, 3 * stride, 3)
    params = jax.jit(network.init)(KEY, x)
    np.testing.assert_array_equal(jax.jit(network.apply)(params, x), np.zeros_like(x))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_shapes_between_levels(stride):
    downsampled = (2, -(-7 // stride), -(-5 // stride), 6)
    assert shapes_of(LevelAnalysis(stride, channels=6, **WIDTHS), 2, 7, 5, 3) == downsampled
    size, last = (2, 3 * stride, 2 * stride), WIDTHS["filters" if stride > 1 else "latent_filters"]
    assert shapes_of(LevelSynthesis(stride, channels=6, **WIDTHS), 2, 3, 2, 3) == ((*size, 6), (*size, last))


@pytest.mark.parametrize("kind", [np.float32, np.int8])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_both_convolutions_inside_are_the_native_one_without_its_border(size, kind):
    x, kernel = (100 * normal(2, 7, 9, 3)).astype(kind), (100 * normal(size, size, 3, 4, seed=1)).astype(kind)
    dtype = jnp.int32 if kind is np.int8 else jnp.float32
    expected = np.asarray(native(x.astype(np.float32), kernel.astype(np.float32)))
    reach = size // 2
    expected = expected[:, reach : 7 - reach, reach : 9 - reach]
    for as_dot in (False, True):
        inside = convolve_inside(x, kernel, as_dot=as_dot, dtype=dtype)
        assert inside.dtype == dtype
        # Integers of this size are exact in float32, too.
        tolerance = 0 if kind is np.int8 else 0.5
        np.testing.assert_allclose(inside, expected, rtol=0, atol=tolerance)


def test_a_twin_computes_with_what_the_frozen_layer_will_have():
    """8 bits for each channel of the kernel, 8 for all of x with zero among its values; gradients go through."""
    x, twin = normal(2, 5, 7, 3), Conv(4, fake=True)
    params = random_params(twin, x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    step = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    rounded = np.rint(kernel / step) * step
    low, high = min(x.min(), 0), x.max()
    seen = np.rint((x - low) / (high - low) * 255) / 255 * (high - low) + low
    expected = np.asarray(native(seen.astype(np.float32), rounded.astype(np.float32))) + bias
    result = jax.jit(twin.apply)(params, x)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert np.abs(result - jax.jit(Conv(4).apply)(params, x)).max() > 1e-3
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(twin.apply(params, x) ** 2)))(params)["params"]
    assert np.all(np.isfinite(gradient["kernel"])) and np.abs(gradient["kernel"]).min() > 0


def test_the_twins_of_a_model_are_those_of_its_decoder():
    """What is frozen to integers; the encoder stays in float."""
    config = tiny(L=2, strides=(4, 2), channels=5, filters=4, latent_filters=3, patch_size=16)
    twins = NestedLatentModel(dataclasses.replace(config, quantize_aware=True))
    model, x, key = NestedLatentModel(config), normal(1, 16, 16, 3) / 4 + 0.5, jax.random.key(0)
    params = jax.tree.map(lambda p: 0.3 * p, random_params(model, x, key))
    run = lambda model: jax.jit(lambda p, x: (model.apply(p, x, method="infer"), model.apply(p, x, key)))(params, x)  # noqa: E731
    (latents, output), (same_latents, twin_output) = run(model), run(twins)
    for z, same in zip(latents, same_latents, strict=True):
        np.testing.assert_array_equal(z, same)
    assert 0 < np.abs(output.x_hat - twin_output.x_hat).max() < 0.1 * np.abs(output.x_hat).max()
    assert np.any(output.bits[0] != twin_output.bits[0])

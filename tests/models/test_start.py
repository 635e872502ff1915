"""Where training starts: lapped cosines and the colours of the crops, and scales as large as the latents."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest
from scipy.fft import dctn

from nlvc.config import tiny
from nlvc.models.energy import EnergyPath
from nlvc.models.lapped import cosines, postfilter, prefilter
from nlvc.models.layers import depth_to_space, space_to_depth
from nlvc.models.nested import SCALE_MAX, SCALE_MIN, TRANSFORM, NestedLatentModel, step_gain
from nlvc.models.start import START_DEVIATION, cosine_basis, energy_path, initialise

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(3)
CONFIG = tiny(L=3, channels=6, filters=4, latent_filters=3, patch_size=16, strides=(4, 2, 1), conditional="laplace")
STD_TO_SCALE = {"laplace": 0.5**0.5, "logistic": 3**0.5 / np.pi}


def smooth_photos(count, height, width, seed=0):
    """Random walks in both directions: neighbours are alike, as in photos. float32 in [0, 1]."""
    x = np.random.default_rng(seed).normal(size=(count, height, width, 3)).cumsum(axis=1).cumsum(axis=2)
    x -= x.min(axis=(1, 2, 3), keepdims=True)
    return (x / x.max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


CROPS = smooth_photos(64, 16, 16)


@pytest.fixture(scope="module")
def params():
    return initialise(CONFIG, KEY, CROPS)


# --- Cosines times colours ---


def blocks_of(crops, block):
    """Rows of the blocks of crops - 1/2."""
    return space_to_depth(crops.astype(np.float64) - 0.5, block).reshape(-1, 3 * block * block)


def lapped_blocks_of(crops, block):
    """The same, prefiltered, as the model sees them."""
    blocks = space_to_depth(np.asarray(prefilter(crops - np.float32(0.5), block)), block)
    return blocks.reshape(-1, 3 * block * block).astype(np.float64)


def picture_of(blocks, height, width, block):
    """The inverse of `lapped_blocks_of`."""
    x = np.float32(blocks).reshape(-1, height // block, width // block, 3 * block * block)
    return np.asarray(postfilter(depth_to_space(x, block), block)) + 0.5


def test_components_are_orthonormal_and_strongest_first():
    basis = cosine_basis(CROPS, 4, 48)
    assert basis.shape == (48, 48) and basis.dtype == np.float32
    np.testing.assert_allclose(basis.T @ basis, np.eye(48), atol=1e-5)
    energy = np.mean((lapped_blocks_of(CROPS, 4) @ basis) ** 2, axis=0)
    assert np.all(np.diff(energy) <= 1e-6 * energy[0])
    np.testing.assert_array_equal(cosine_basis(CROPS, 4, 6), basis[:, :6])


def test_a_component_is_a_cosine_along_each_side_times_a_colour():
    rows, basis = cosines(4), cosine_basis(CROPS, 4, 48).reshape(4, 4, 3, 48)
    parts = np.einsum("ua,vb,abck->kuvc", rows, rows, basis)
    lengths = np.linalg.norm(parts, axis=-1)
    places = [tuple(np.argwhere(length > 0.5)[0]) for length in lengths]
    np.testing.assert_allclose(np.sum(lengths, axis=(1, 2)), 1, atol=1e-5)
    # Each pair of frequencies with each of three colours.
    assert sorted(places) == sorted([(u, v) for u in range(4) for v in range(4)] * 3)
    colours = np.stack([part[place] for part, place in zip(parts, places, strict=True)])
    three = colours[[place == (0, 0) for place in places]]
    np.testing.assert_allclose(np.max(np.abs(colours @ three.T), axis=1), 1, atol=1e-5)
    # Over these photos no two of them go together: that is what makes them the Karhunen-Loève transform.
    samples = (CROPS.reshape(-1, 3).astype(np.float64) - 0.5) @ three.T
    products = samples.T @ samples / len(samples)
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-6 * products.max())
    assert np.all(np.diff(np.diag(products)) < 0)


def test_all_components_give_every_photo_back():
    basis, photos = cosine_basis(CROPS, 4, 48), smooth_photos(2, 8, 12, seed=1)
    blocks = lapped_blocks_of(photos, 4) @ basis @ basis.T
    np.testing.assert_allclose(picture_of(blocks, 8, 12, 4), photos, atol=1e-5)


def test_few_components_keep_more_than_as_many_of_blocks_alone():
    blocks, basis = lapped_blocks_of(CROPS, 4), cosine_basis(CROPS, 4, 6)
    assert basis.shape == (48, 6)
    dct = dctn(blocks_of(CROPS, 4).reshape(-1, 4, 4, 3), axes=(1, 2, 3), norm="ortho").reshape(-1, 48)
    best_of_dct = np.sort(np.sum(dct**2, axis=0))[-6:].sum()
    kept = np.sum((blocks @ basis) ** 2)
    assert best_of_dct < kept <= np.sum(blocks**2) * (1 + 1e-6)


def test_what_is_left_of_the_last_block_is_not_used():
    crops = smooth_photos(4, 11, 9)
    np.testing.assert_array_equal(cosine_basis(crops, 4, 5), cosine_basis(crops[:, :8, :8], 4, 5))


def test_many_crops_are_not_held_in_memory_once_more():
    crops = np.random.default_rng(0).random((640, 32, 32, 3), np.float32)
    cosine_basis(crops[:64], 4, 5)
    tracemalloc.start()
    try:
        cosine_basis(crops, 4, 5)
        assert tracemalloc.get_traced_memory()[1] < crops.nbytes
    finally:
        tracemalloc.stop()


# --- The whole start ---


def test_bases_are_the_transform_in_two_copies(params):
    analysis, synthesis = params["analysis_basis"], params["synthesis_basis"]
    np.testing.assert_array_equal(analysis, synthesis)
    lengths = np.linalg.norm(np.asarray(analysis), axis=0)
    np.testing.assert_allclose(np.asarray(analysis) / lengths, cosine_basis(CROPS, 4, 6), atol=1e-6)
    # The training step gives its buffers away, and one buffer cannot be given twice.
    assert analysis.unsafe_buffer_pointer() != synthesis.unsafe_buffer_pointer()


@jax.jit
def chain(params, x, above):
    """z_1..z_L of x, p(z_1|above[0]) and p(z_2|above[1]), and the photos of z_1."""
    model, params = NestedLatentModel(CONFIG), {"params": params}
    latents = model.apply(params, x, method="infer")
    priors = [model.apply(params, n, above[n - 1], method="conditional") for n in (1, 2)]
    return latents, priors, model.apply(params, latents[0], method="synthesise")


def test_training_starts_as_that_transform_code(params):
    """The networks beside the linear paths are silent: z_1 is the transform's, every mean is zero."""
    above = [np.ones((1, *shape, 6), np.float32) for shape in CONFIG.level_shapes(16, 16)[1:]]
    latents, priors, x_hat = chain(params, CROPS, above)
    basis, gain = cosine_basis(CROPS, 4, 6).astype(np.float64), step_gain(CONFIG.lmbda)
    np.testing.assert_allclose(np.exp(params["log_gain"]), np.full(6, gain), rtol=1e-6)
    coefficients = lapped_blocks_of(CROPS, 4) @ basis
    np.testing.assert_allclose(np.reshape(latents[0], (-1, 6)), gain * coefficients, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x_hat, picture_of(coefficients @ basis.T, 16, 16, 4), atol=1e-5)
    assert not any(np.any(prior.mean) for prior in priors)


def test_a_silent_level_above_means_the_scale_of_the_whole_channel(params):
    shapes = CONFIG.level_shapes(16, 16)
    _, priors, _ = chain(params, CROPS, [np.zeros((1, *shape, 6), np.float32) for shape in shapes[1:]])
    for level, prior in enumerate(priors, start=1):
        assert prior.scale.shape == (1, *shapes[level - 1], 6)
        expected = np.minimum(SCALE_MIN + np.exp(params[f"log_scale_{level}"]), SCALE_MAX)
        np.testing.assert_allclose(prior.scale, np.broadcast_to(expected, prior.scale.shape), rtol=1e-4)


def test_the_top_level_starts_with_its_own_scales(params):
    z = NestedLatentModel(CONFIG).apply({"params": params}, CROPS, method="infer")[-1]
    std = np.sqrt(np.mean(np.square(z, dtype=np.float64), axis=(0, 1, 2)))
    scale = np.exp(params["log_scale_3"])
    np.testing.assert_allclose(scale, np.maximum(STD_TO_SCALE["logistic"] * std, 0.05), rtol=1e-3)


def test_without_energies_the_levels_start_at_one_deviation():
    config = dataclasses.replace(CONFIG, linear_path=False)
    params = initialise(config, KEY, CROPS)
    latents = NestedLatentModel(config).apply({"params": params}, CROPS, method="infer")
    for level, z in enumerate(latents, start=1):
        std = np.sqrt(np.mean(np.square(z, dtype=np.float64), axis=(0, 1, 2)))
        if level > 1:
            np.testing.assert_allclose(std, START_DEVIATION, rtol=1e-3)
        scale = STD_TO_SCALE["laplace" if level < 3 else "logistic"] * std
        np.testing.assert_allclose(np.exp(params[f"log_scale_{level}"]), np.maximum(scale, 0.05), rtol=1e-3)


# --- The energies ---


def busy_and_calm(seed=1, count=256, stride=2):
    """z (N, 4, 4, 8): normal numbers times a size that all channels of a block share, and those sizes, (N, 2, 2, 1)."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=(count, 2, 2, 1))) * 3
    z = rng.normal(size=(count, 2 * stride, 2 * stride, 8)) * size.repeat(stride, axis=1).repeat(stride, axis=2)
    return z.astype(np.float32), size


def coded_energies(path, z, stride=2):
    """What the level above says after rounding, and the change of the log scales that its reader makes of it."""
    module = EnergyPath(stride, below=z.shape[-1], above=path["bias"].size)
    above = np.round(module.apply({"params": path}, z, method="analyse"))
    return above, np.asarray(module.apply({"params": path}, above, method="synthesise"))


def one_rate(z, **sizes):
    """`energy_path` for a model of one rate."""
    path, (deviation,) = energy_path([z], **sizes)
    return {**path, "bias": path["bias"][0]}, deviation


def test_one_component_tells_the_size_that_all_channels_share():
    z, size = busy_and_calm()
    path, deviation = one_rate(z, stride=2, components=8)
    above, change = coded_energies(path, z)
    assert np.mean(above != 0, axis=(0, 1, 2)).argmax() == 0 and np.any(above[..., 0])
    # The noise of a channel's four samples must not be told: nearly all that is said is the size.
    assert np.mean(above[..., 1:] != 0) < 0.02
    told = np.log(deviation) + change
    error = told - np.log(size).repeat(2, axis=1).repeat(2, axis=2)
    assert np.sqrt(np.mean(error**2)) < 0.35  # of sizes whose logarithms deviate by 1
    assert np.corrcoef(told[:, ::2, ::2].mean(-1).ravel(), np.log(size).ravel())[0, 1] > 0.95


def test_deviations_are_those_of_z_over_what_the_energies_tell():
    z, _ = busy_and_calm()
    path, deviation = one_rate(z, stride=2, components=8)
    _, change = coded_energies(path, z)
    np.testing.assert_allclose(np.sqrt(np.mean((z / np.exp(change)) ** 2, axis=(0, 1, 2))), deviation, rtol=1e-3)


def test_the_energies_save_more_bits_than_they_cost():
    """Against the best scale that does not change from place to place, in nats of a Gaussian."""
    z, _ = busy_and_calm()
    path, deviation = one_rate(z, stride=2, components=8)
    above, change = coded_energies(path, z)
    saved = np.log(np.sqrt(np.mean(z**2, axis=(0, 1, 2)))).mean() - np.mean(np.log(deviation) + change)
    _, counts = np.unique(above[..., 0], return_counts=True)
    entropy = -np.sum(counts / counts.sum() * np.log(counts / counts.sum()))
    assert saved * z[0].size > 2 * entropy * above[0, ..., 0].size


def test_equal_energies_everywhere_are_not_told():
    z = np.random.default_rng(2).normal(size=(256, 4, 4, 8)).astype(np.float32) * 3
    path, deviation = one_rate(z, stride=2, components=8)
    above, _ = coded_energies(path, z)
    assert np.mean(above != 0) < 0.01
    np.testing.assert_allclose(deviation, 3, rtol=0.1)


def test_sides_that_are_no_multiple_and_fewer_components():
    z = busy_and_calm()[0][:, :3, :1]
    path, deviation = one_rate(z, stride=2, components=5)
    assert {name: value.shape for name, value in path.items()} == {
        "analysis": (8, 5), "bias": (5,), "synthesis": (5, 8)
    }  # fmt: skip
    assert deviation.shape == (8,) and np.all(np.isfinite(deviation))


# --- Ends ---


def test_the_start_is_the_same_for_the_same_key_and_crops(params):
    again = initialise(CONFIG, KEY, CROPS)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_photos_of_one_colour_are_no_reason_for_infinities():
    params = initialise(CONFIG, KEY, np.full_like(CROPS, 0.5))
    for leaf in jax.tree.leaves(params):
        assert np.all(np.isfinite(leaf))
    np.testing.assert_allclose(params["log_scale_1"], np.log(0.05), rtol=1e-5)


def test_without_a_linear_path_there_is_no_basis():
    config = tiny(L=1, channels=3, filters=2, latent_filters=2, patch_size=16, strides=(4,), linear_path=False)
    params = initialise(config, KEY, CROPS[:4])
    assert params.keys() == {"analysis", "synthesis", "log_scale_1", "log_gain"}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rate", ["fixed", "variable"])
def test_a_factorised_prior_starts_as_large_as_its_latent(rate):
    config = dataclasses.replace(CONFIG, L=2, strides=(4, 2), prior="factorized", rate=rate)
    params = initialise(config, KEY, CROPS)
    prior = NestedLatentModel(config).apply({"params": params}, config.L, None, None, method="conditional")
    scales = np.exp(np.asarray(params["log_scale_2"]).reshape(-1, 6).mean(axis=0))
    np.testing.assert_allclose(np.asarray(prior.quantile(0.75)).ravel(), np.log(3) * scales, rtol=1e-3)


def test_latents_of_a_given_transform_are_those_of_the_whole_inference(params):
    transform = {name: params[name] for name in TRANSFORM if name in params}
    again = initialise(CONFIG, KEY, CROPS, transform)
    jax.tree.map(np.testing.assert_array_equal, again, dict(params))

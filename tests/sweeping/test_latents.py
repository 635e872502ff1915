"""z_1 that chains on one transform share: the same as each would compute, and computed once."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from nlvc import data
from nlvc.config import tiny
from nlvc.sweeping import latents
from nlvc.training.loop import create_state, make_train_step, make_transform, make_update
from nlvc.training.states import stream


@pytest.fixture
def kept(monkeypatch):
    """What is kept, empty at first."""
    monkeypatch.setattr(latents, "_kept", {})
    return latents._kept


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "train"
    folder.mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return data.photos(str(folder.parent), "train")


@pytest.fixture(scope="module")
def chain(photos):
    """The configuration of a chain, and its first state as NumPy arrays."""
    size = {"channels": 6, "filters": 4, "latent_filters": 4, "patch_size": 16, "strides": (4, 2), "batch_size": 2}
    config = tiny(L=2, rate="variable", trained="chain", init_from="runs/a", seed=3, **size)
    with stream(config, photos, seed=1, batch_size=16) as crops:
        first = next(crops)
    return config, jax.device_get(create_state(config, first))


def taken(config, state, photos, start, count):
    return list(itertools.islice(latents.latents(config, state.params, photos, start), count))


def test_they_are_the_transform_of_the_crops(chain, photos, kept):
    config, state = chain
    with stream(config, photos, seed=config.seed, batch_size=2) as crops:
        batches = [next(crops) for _ in range(4)]
    transform = jax.jit(make_transform(config))
    expected = [
        transform(state.params, crops, np.int32(step), jax.random.key(config.seed))
        for step, crops in enumerate(batches)
    ]
    for found in (taken(config, state, photos, 0, 4), taken(config, state, photos, 0, 4)):
        np.testing.assert_array_equal(found, expected)
    # From a later step on, partly out of what is kept; and with a gap.
    np.testing.assert_array_equal(taken(config, state, photos, 2, 1), expected[2:3])
    kept.clear()
    taken(config, state, photos, 1, 1)
    np.testing.assert_array_equal(taken(config, state, photos, 0, 4), expected)


def test_they_are_computed_once(chain, photos, kept, monkeypatch):
    config, state = chain
    taken(config, state, photos, 0, 3)
    monkeypatch.setattr(latents, "stream", None)
    other = dataclasses.replace(config, L=3, strides=(4, 1, 1), prior="factorized", workdir="other")
    assert len(taken(other, state, photos, 0, 3)) == 3


@pytest.mark.parametrize("change", ["seed", "transform"])
def test_of_other_crops_or_transforms_they_are_others(chain, photos, kept, change):
    config, state = chain
    first = taken(config, state, photos, 0, 1)
    if change == "seed":
        config = dataclasses.replace(config, seed=4)
    else:
        state = state.replace(params={**state.params, "log_gain": state.params["log_gain"] + 1})
    assert not np.array_equal(taken(config, state, photos, 0, 1), first)
    assert len(kept) == 2


def test_memory_is_bounded(chain, photos, kept, monkeypatch):
    config, state = chain
    first = taken(config, state, photos, 0, 4)
    kept.clear()
    monkeypatch.setattr(latents, "MOST", 2 * first[0].nbytes)
    for _ in range(2):
        np.testing.assert_array_equal(taken(config, state, photos, 0, 4), first)
    assert [list(its) for its in kept.values()] == [[0, 1]]


def test_a_step_is_the_same_with_them(chain, photos, kept):
    config, state = chain
    with stream(config, photos, seed=config.seed, batch_size=2) as crops:
        alone, metrics = make_train_step(config)(jax.device_put(state), next(crops))
    (z,) = taken(config, state, photos, 0, 1)
    shared, others = jax.jit(make_update(config))(jax.device_put(state), z, jax.random.key(config.seed))
    np.testing.assert_allclose(metrics["loss"], others["loss"], rtol=1e-5)
    for ours, its in zip(jax.tree.leaves(alone.ema), jax.tree.leaves(shared.ema), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-3, atol=1e-4)

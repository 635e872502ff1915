"""Packed models are the models: each as if it were alone, whatever its neighbours do."""

import dataclasses

import jax
import numpy as np
import pytest

from nlvc.training import packed
from nlvc.training.loop import create_state, make_train_step, make_validation


@pytest.fixture(scope="module")
def mesh():
    return packed.mesh_of(jax.local_devices()[:1])


@pytest.fixture(scope="module")
def configs(config):
    """Two models that differ in what a pack allows."""
    return [config, dataclasses.replace(config, lmbda=0.05, seed=6)]


@pytest.fixture(scope="module")
def states(configs, batch_at):
    return [jax.device_get(create_state(config, batch_at(0, count=64))) for config in configs]


@pytest.fixture(scope="module")
def train_packed(configs, mesh, batch_at):
    """train_packed(states, steps) -> (states, last metrics); model k sees batches of its own."""
    step = packed.make_packed_step(packed.shape_of(configs[0]), mesh)
    keys = packed.pack_keys([config.seed for config in configs], mesh)
    lambdas = packed.pack([np.float32(config.lmbda) for config in configs], mesh)

    def train(states, steps=4):
        state = packed.pack(states, mesh)
        for number in range(steps):
            batch = packed.pack([batch_at(10 * model + number) for model in range(2)], mesh)
            state, metrics = step(state, batch, keys, lambdas)
        state, metrics = jax.device_get((state, metrics))
        return [(packed.unpack(state, model), packed.unpack(metrics, model)) for model in range(2)]

    return train


def test_packed_models_are_the_models_trained_alone(configs, states, train_step, train_packed, batch_at):
    steps = [train_step, make_train_step(configs[1])]
    for model, (ours, metrics) in enumerate(train_packed(states)):
        step, state = steps[model], jax.device_put(jax.tree.map(np.copy, states[model]))
        for number in range(4):
            state, expected = step(state, batch_at(10 * model + number))
        assert ours.step == 4
        for name in expected:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4)
        for leaf, other, start in zip(*map(jax.tree.leaves, (ours.params, state.params, states[model].params)),
                                      strict=True):  # fmt: skip
            # Less than a hundredth of the way that training went.
            assert np.abs(leaf - other).max() <= 0.01 * np.abs(other - start).max() + 1e-6


def test_a_model_that_is_not_finite_harms_no_other(states, train_packed, assert_same):
    broken = jax.tree.map(lambda leaf: leaf * np.nan if leaf.dtype == np.float32 else leaf, states[1])
    sound, ruined = train_packed([states[0], broken])
    assert np.isnan(ruined[1]["loss"])
    assert_same(sound, train_packed(states)[0])


def test_validation_is_that_of_each_model(configs, states, mesh, batch_at):
    validate = packed.make_packed_validation(packed.shape_of(configs[0]), mesh)
    lambdas = packed.pack([np.float32(config.lmbda) for config in configs], mesh)
    metrics = validate(packed.pack([state.ema for state in states], mesh), batch_at(3), lambdas)
    for model, config in enumerate(configs):
        expected = make_validation(config, batch_at(3))(states[model].ema)
        for name in expected:
            np.testing.assert_allclose(metrics[name][model], expected[name], rtol=1e-4)


def test_what_is_unpacked_has_memory_of_its_own(mesh):
    packed_ = packed.pack([{"a": np.float32(1), "b": np.ones(2)}, {"a": np.float32(2), "b": np.zeros(2)}], mesh)
    host = jax.device_get(packed_)
    tree = packed.unpack(host, 0)
    assert tree["a"].shape == () and isinstance(tree["a"], np.ndarray)
    assert not np.shares_memory(tree["b"], host["b"])


def test_shapes(config):
    alike = dataclasses.replace(config, lmbda=0.1, seed=9, workdir="x")
    assert packed.shape_of(alike) == packed.shape_of(config) != packed.shape_of(dataclasses.replace(config, steps=9))


def test_the_memory_of_a_model(config, states):
    """At least its state and what is saved of it; and here, with crops of 16 pixels, not much more."""
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(states[0]))
    assert 2 * state < packed.bytes_per_model(packed.shape_of(config)) < 2 * state + (16 << 20)


def test_models_that_fit(config, monkeypatch):
    class Device:
        pass

    monkeypatch.setattr(packed, "bytes_per_model", lambda shape: 100)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device])
    for limit, models in ((1, 1), (125, 1), (400, 3), (10**9, packed.MOST)):
        Device.memory_stats = lambda limit=limit: {"bytes_limit": limit}
        assert packed.models_that_fit(config) == models
    Device.memory_stats = lambda: None  # a CPU
    assert packed.models_that_fit(config) == 1


def test_places_that_are_left_are_filled():
    class Eight:
        size = 8

    assert packed.filled([1, 2, 3], Eight) == [1, 2, 3, 3, 3, 3, 3, 3]
    assert packed.filled(list(range(16)), Eight) == list(range(16))

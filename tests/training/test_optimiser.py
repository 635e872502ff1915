"""The learning rate over a run, and the steps that gradients become."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlvc.config import base, paper
from nlvc.training.optimiser import SIZE, optimiser, schedule

# --- The schedule ---


@pytest.mark.parametrize("changes", [{}, {"steps": 100_000, "warmup_steps": 1000, "learning_rate": 3e-4}])
def test_ends_of_the_schedule(changes):
    config = paper(**changes)
    rate = schedule(config)
    assert rate(0) == pytest.approx(config.learning_rate / 100, rel=1e-4)
    assert rate(config.warmup_steps) == pytest.approx(config.learning_rate, rel=1e-4)
    assert rate(config.steps) == pytest.approx(config.learning_rate / 100, rel=1e-4)
    # Up in a straight line, at the peak for long, and down in another in the last fifth.
    assert rate(config.warmup_steps // 2) == pytest.approx(config.learning_rate * 0.505, rel=1e-4)
    assert rate(config.steps * 4 // 5) == pytest.approx(config.learning_rate, rel=1e-3)
    assert rate(config.steps * 9 // 10) == pytest.approx(config.learning_rate * 0.505, rel=1e-3)


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 100), (2, 100), (50, 100), (50, 0)])
def test_a_run_may_be_shorter_than_its_warm_up(steps, warmup_steps):
    config = base(steps=steps, warmup_steps=warmup_steps)
    rates = [float(schedule(config)(step)) for step in range(0, steps + 1, max(1, steps // 5))]
    assert np.all(np.isfinite(rates))
    assert 0 < min(rates) and max(rates) <= config.learning_rate * (1 + 1e-6)


# --- The steps ---

SHAPES = {"tall": (3, 3, 12, 8), "wide": (3, 3, 2, 40), "bias": (8,), "basis": (48, 12)}


def steps_of(config, scale=1e-2, count=3):
    """(gradients, updates) of the last of `count` steps with other gradients, as NumPy arrays."""
    transform = optimiser(config)
    params = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    state = transform.init(params)
    for number in range(count):
        rng = np.random.default_rng(number)
        # All outputs much alike, as gradients are: one direction is ten times as long as the others.
        alike = {name: rng.normal(size=(*shape[:-1], 1)) for name, shape in SHAPES.items()}
        gradients = {n: np.float32(scale * (alike[n] + rng.normal(0, 0.3, shape))) for n, shape in SHAPES.items()}
        updates, state = jax.jit(transform.update)(gradients, state, params)
    return gradients, jax.device_get(updates)


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_steps_of_kernels_are_nearly_orthogonal(name):
    """As matrices (k k C, C'): all singular values about the same, and the size that is meant."""
    config = base(warmup_steps=0)
    step = steps_of(config)[1][name].reshape(-1, SHAPES[name][-1])
    values = np.linalg.svd(step, compute_uv=False)
    assert values.max() / values.min() < 2
    assert np.sqrt(np.mean(step**2)) == pytest.approx(SIZE * config.learning_rate, rel=0.3)
    adam = steps_of(dataclasses.replace(config, optimiser="adam"))[1][name].reshape(step.shape)
    values = np.linalg.svd(adam, compute_uv=False)
    assert values.max() / values.min() > 4


def test_steps_of_everything_else_are_adams():
    config = base(warmup_steps=0)
    ours, adams = steps_of(config)[1], steps_of(dataclasses.replace(config, optimiser="adam"))[1]
    for name in ("bias", "basis"):
        np.testing.assert_allclose(ours[name], adams[name], rtol=1e-5)
        assert 0.1 < np.sqrt(np.mean(adams[name] ** 2)) / config.learning_rate <= 1


@pytest.mark.parametrize("name", ["muon", "adam"])
def test_steps_go_down_and_do_not_depend_on_the_size_of_the_loss(name):
    config = base(warmup_steps=0, optimiser=name)
    gradients, updates = steps_of(config, count=1)
    _, larger = steps_of(config, scale=0.02, count=1)
    for leaf in SHAPES:
        assert np.sum(gradients[leaf] * updates[leaf]) < 0
        np.testing.assert_allclose(larger[leaf], updates[leaf], atol=0.01 * config.learning_rate, err_msg=leaf)


def test_long_gradients_are_scaled_down_first():
    """A gradient a thousand times longer than the clip is as one of the clip's length to all that comes after."""
    config = base(warmup_steps=0, optimiser="adam", clip_norm=1e-3)
    transform = optimiser(config)
    gradient = {"bias": jnp.array([3.0, -4.0])}
    state = transform.update(gradient, transform.init(gradient), gradient)[1]
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,)]
    np.testing.assert_allclose(moments[0], [0.1 * 6e-4, -0.1 * 8e-4], rtol=1e-5)


def test_the_paper_is_trained_by_adam():
    assert paper().optimiser == "adam" and base().optimiser == "muon"

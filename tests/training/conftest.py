"""One very small model, started once, and its training step, compiled once for all of these tests.

JAX is imported by the fixtures alone: this file may be read before tests/conftest.py has set JAX's environment.
"""

import numpy as np
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """These programs run for milliseconds; optimising them takes many seconds."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="package")
def config():
    from nlvc.config import tiny

    size = {"channels": 6, "filters": 4, "latent_filters": 4, "patch_size": 16, "strides": (4, 2), "batch_size": 2}
    rates = {"learning_rate": 5e-3, "warmup_steps": 4, "steps": 40, "ema_decay": 0.9, "clip_norm": 1.0}
    return tiny(L=2, conditional="laplace", seed=5, **size, **rates)


@pytest.fixture(scope="package")
def batch_at():
    """A function from a step's number to its batch, (2, 16, 16, 3): random gradients of colour with grain."""

    def batch(number, count=2):
        rng = np.random.default_rng([7, number])
        rows, columns = np.linspace(-1, 1, 16).reshape(1, 16, 1, 1), np.linspace(-1, 1, 16).reshape(1, 1, 16, 1)
        slopes = rng.normal(0, 0.3, (2, count, 1, 1, 3))
        grain = rng.normal(0, 0.03, (count, 16, 16, 3))
        return np.clip(0.5 + slopes[0] * rows + slopes[1] * columns + grain, 0, 1).astype(np.float32)

    return batch


@pytest.fixture(scope="package")
def first_state(quick_compilation, config, batch_at):
    """The state at step 0, as NumPy arrays."""
    import jax

    from nlvc.training.loop import create_state

    return jax.device_get(create_state(config, batch_at(0, count=64)))


@pytest.fixture
def fresh(first_state):
    """A function to a state at step 0 that may be given away."""
    import jax

    # Copies, because an array on the CPU may share the memory of the NumPy array that it was made of.
    return lambda: jax.device_put(jax.tree.map(np.copy, first_state), jax.devices()[0])


@pytest.fixture(scope="package")
def train_step(quick_compilation, config):
    from nlvc.training.loop import make_train_step

    return make_train_step(config)


@pytest.fixture(scope="package")
def assert_same():
    """assert_same(a, b): two trees of the same structure with the same bits in every leaf."""
    import jax

    def check(ours, expected):
        assert jax.tree.structure(ours) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)

    return check

"""What several tests of models share. JAX is imported by fixtures alone, after its environment has been set."""

import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """For programs that run for milliseconds: optimising them takes many seconds."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)

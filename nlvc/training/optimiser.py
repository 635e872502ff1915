"""How gradients become steps: the learning rate over the run, and Muon or Adam."""

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from nlvc.config import Config

ITERATIONS = 3
"""Of Newton and Schulz. Five, as usual, are no better here (`experiments/training_tricks.md`) and cost two thirds more;
the first of the three is preconditioned (Boissin et al. 2025)."""

SIZE = 0.4
"""Root mean square of a step of Muon at a learning rate of one. With 0.2 it is about Adam's (Liu et al. 2025), but
twice that trains faster (`experiments/training_tricks.md`)."""


def schedule(config: Config) -> optax.Schedule:
    """Linear warm-up to the peak, which lasts; in the last fifth of the steps, linearly down to a hundredth of it.

    A little better than a cosine (`experiments/training_tricks.md`); and what a run is like before its last fifth does
    not depend on how long it is.
    """
    peak, warmup = config.learning_rate, min(config.warmup_steps, config.steps - 1)
    down = max(1, min(config.steps - warmup, config.steps // 5))
    first = optax.linear_schedule(peak / 100, peak, warmup)
    then = optax.linear_schedule(peak, peak / 100, down, transition_begin=config.steps - warmup - down)
    return optax.join_schedules([first, then], [warmup])


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam, or Muon for the kernels and Adam for the rest, behind a clip of the global norm."""
    rate = schedule(config)
    settings = {"preconditioning": "aol", "consistent_rms": SIZE, "muon_weight_dimension_numbers": matrices}
    kinds = {"adam": optax.adam(rate), "muon": muon(rate, ns_steps=ITERATIONS, **settings)}
    steps = optax.partition(kinds, kernels) if config.optimiser == "muon" else kinds["adam"]
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), steps)


def kernels(params: dict) -> dict:
    """Whose steps a parameter takes. Bases of the linear path are matrices too, but start where they nearly stay."""
    return jax.tree.map(lambda leaf: "muon" if leaf.ndim == 4 else "adam", params)


def matrices(kernels: dict) -> dict:
    """Kernels (k, k, C, C') as matrices (k k C, C')."""
    return jax.tree.map(lambda _: MuonDimensionNumbers((0, 1, 2), 3), kernels)

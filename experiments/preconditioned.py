"""Two optimisers that precondition by the gradient's own second moments, for kernels seen as matrices.

    shampoo   L^(-1/4) G R^(-1/4), with the size of Adam's update (Gupta et al. 2018; grafting: Agarwal et al. 2020)
    soap      Adam in the eigenbasis of L and R (Vyas et al. 2024)

L and R are running means of G G^T and G^T G; a side longer than LARGEST is left alone, because an eigenbasis of it
would cost more than the step. Bases are made anew every EVERY steps.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct

LARGEST, EVERY = 640, 20
B1, B2, TINY = 0.9, 0.99, 1e-8


class Sides(struct.PyTreeNode):
    """Of one kernel: running means of both sides, their eigenvectors and eigenvalues; () for a side left alone."""

    squares: tuple
    vectors: tuple
    values: tuple


class State(struct.PyTreeNode):
    """count: steps; sides: as the kernels; first, second: moments; adam: of the plain gradient, for its size."""

    count: jax.Array
    sides: dict
    first: dict
    second: dict
    adam: optax.OptState


def as_matrix(kernel: jax.Array) -> jax.Array:
    """(k, k, C, C') -> (k k C, C')."""
    return kernel.reshape(-1, kernel.shape[-1])


def fresh(kernel: jax.Array) -> Sides:
    sizes = as_matrix(kernel).shape
    square = tuple(jnp.zeros((n, n)) if n <= LARGEST else () for n in sizes)
    vectors = tuple(jnp.eye(n) if n <= LARGEST else () for n in sizes)
    values = tuple(jnp.ones(n) if n <= LARGEST else () for n in sizes)
    return Sides(square, vectors, values)


def watched(sides: Sides, g: jax.Array, count: jax.Array) -> Sides:
    """The running means with one more gradient; at every EVERY-th step their eigenbases."""
    new = tuple(
        B2 * s + (1 - B2) * (g @ g.T if side == 0 else g.T @ g) if len(s) else s for side, s in enumerate(sides.squares)
    )

    def decomposed():
        pairs = [jnp.linalg.eigh(s) if len(s) else ((), ()) for s in new]
        return tuple(v for _, v in pairs), tuple(w for w, _ in pairs)

    vectors, values = jax.lax.cond(count % EVERY == 0, decomposed, lambda: (sides.vectors, sides.values))
    return Sides(new, vectors, values)


def turned(g: jax.Array, vectors: tuple, back: bool = False) -> jax.Array:
    """Into the eigenbasis, or out of it."""
    left, right = vectors
    if len(left):
        g = (left if back else left.T) @ g
    if len(right):
        g = g @ (right.T if back else right)
    return g


def _transform(rate: optax.Schedule, direction) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(B1, B2, TINY)

    def init(params):
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros_like(as_matrix(p)), params)  # noqa: E731
        return State(jnp.zeros((), jnp.int32), jax.tree.map(fresh, params), zeros(), zeros(), adam.init(params))

    def update(gradients, state, params=None):
        del params
        usual, adam_state = adam.update(gradients, state.adam)
        leaves, tree = jax.tree.flatten(gradients)
        parts = [tree.flatten_up_to(part) for part in (state.sides, state.first, state.second, usual)]
        results = []
        for kernel, sides, first, second, size in zip(leaves, *parts, strict=True):
            g = as_matrix(kernel)
            sides = watched(sides, g, state.count)
            step, first, second = direction(g, sides, first, second, as_matrix(size), state.count + 1)
            results.append((step.reshape(kernel.shape) * -rate(state.count), sides, first, second))
        updates, sides, first, second = (tree.unflatten(part) for part in zip(*results, strict=True))
        return updates, State(state.count + 1, sides, first, second, adam_state)

    return optax.GradientTransformation(init, update)


def shampoo(rate: optax.Schedule) -> optax.GradientTransformation:
    """For kernels only. rate: learning rate by step."""

    def direction(g, sides, first, second, size, count):
        first = B1 * first + (1 - B1) * g
        turned_g = turned(first, sides.vectors)
        for side, values in enumerate(sides.values):
            if len(values):
                root = jnp.maximum(values, 1e-6 * jnp.max(values) + 1e-30) ** -0.25
                turned_g = turned_g * jnp.expand_dims(root, 1 - side)
        step = turned(turned_g, sides.vectors, back=True)
        step = step * jnp.linalg.norm(size) / jnp.maximum(jnp.linalg.norm(step), 1e-30)
        return step, first, second

    return _transform(rate, direction)


def soap(rate: optax.Schedule) -> optax.GradientTransformation:
    """For kernels only. rate: learning rate by step."""

    def direction(g, sides, first, second, size, count):
        first = B1 * first + (1 - B1) * g
        second = B2 * second + (1 - B2) * turned(g, sides.vectors) ** 2
        mean = turned(first, sides.vectors) / (1 - B1**count)
        return turned(mean / (jnp.sqrt(second / (1 - B2**count)) + TINY), sides.vectors, back=True), first, second

    return _transform(rate, direction)

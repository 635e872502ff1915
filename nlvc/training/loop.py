"""The training state and the one pure step that changes it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from nlvc.config import LAMBDAS, Config
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import TRANSFORM, NestedLatentModel
from nlvc.models.rates import hats
from nlvc.models.start import initialise
from nlvc.training.optimiser import optimiser


class TrainState(struct.PyTreeNode):
    """All that a resumed run needs. ema is the running mean of params, which codes photos."""

    step: Array
    params: dict
    ema: dict
    opt_state: optax.OptState


def create_state(config: Config, crops: np.ndarray, transform: dict | None = None) -> TrainState:
    """The state at step 0, from the seed and the first crops (N, P, P, 3) in [0, 1]; transform: as of `initialise`."""
    return state_of(config, initialise(config, jax.random.key(config.seed), crops, transform))


def state_of(config: Config, params: dict) -> TrainState:
    """The state at step 0 with these parameters."""
    # A copy: the step donates its input, and one buffer cannot be given away twice.
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimiser(config).init(trained(config, params)))


def trained(config: Config, params: dict) -> dict:
    """The parameters that training changes."""
    return {name: value for name, value in params.items() if config.trained == "all" or name not in TRANSFORM}


def abstract_state(config: Config, place: jax.sharding.Sharding | None = None) -> TrainState:
    """What `create_state` gives without its numbers, to restore into: shapes and types, and the place where they lie,
    else the first device."""

    def make(key: Array) -> TrainState:
        x = jnp.zeros((1, config.patch_size, config.patch_size, 3))
        params = NestedLatentModel(config).init(key, x, key)["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, params, optimiser(config).init(trained(config, params)))

    place = place or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(make, jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)


def make_train_step(
    config: Config, place: jax.sharding.Sharding | None = None
) -> Callable[[TrainState, Array], tuple[TrainState, dict[str, Array]]]:
    """The jitted step (state, batch (B, P, P, 3) in [0, 1]) -> (state, metrics). The given state is donated.

    The noise depends on the seed and the step alone: a resumed run draws the same, and so does one on other devices.
    place: where the new state lies; on several devices, on each of them whole, while the batch is shared by rows
    (`training.devices`).
    """
    update, transform = make_update(config), make_transform(config)

    def step(state: TrainState, batch: Array):
        key = jax.random.key(config.seed)
        if config.trained == "chain":
            batch = transform(state.params, batch, state.step, key)
        return update(state, batch, key)

    return jax.jit(step, donate_argnums=0, out_shardings=place)


def make_update(config: Config) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The pure step (state, batch, key, lmbda=None) -> (state, metrics).

    batch: crops (B, P, P, 3); where the chain alone is trained, what `make_transform` makes of them; key: of the seed,
    the same at every step; lmbda: a scalar instead of the config's. With both as arguments, models that differ in
    nothing else are trained by one program.
    """
    model, transform, whole = NestedLatentModel(config), optimiser(config), config.trained == "all"

    def loss(params: dict, batch: Array, key: Array, lmbda: Array | None):
        weights = hats(lmbda) if config.rate == "variable" else None
        output = model.apply({"params": params}, batch, key, weights, method="__call__" if whole else "rates")
        return rate_distortion(config, output, batch if whole else None, lmbda)

    def update(state: TrainState, batch: Array, key: Array, lmbda: Array | None = None):
        if config.rate == "variable":
            lmbda = sample_lambdas(key, state.step, len(batch))
        key = jax.random.fold_in(key, state.step)
        moving = trained(config, state.params)
        gradient = jax.value_and_grad(lambda moving, *rest: loss({**state.params, **moving}, *rest), has_aux=True)
        if config.accumulate > 1:
            gradient = accumulated(gradient, config.accumulate)
        (value, metrics), gradients = gradient(moving, batch, key, lmbda)
        updates, opt_state = transform.update(gradients, state.opt_state, moving)
        moving = optax.apply_updates(moving, updates)
        # A short memory at first, so that the start is soon forgotten.
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.ema_decay, (1 + count) / (10 + count))
        ema = optax.incremental_update(moving, trained(config, state.ema), 1 - decay)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), **metrics}
        # What is not trained stays as it is, to the last bit.
        return TrainState(state.step + 1, {**state.params, **moving}, {**state.ema, **ema}, opt_state), metrics

    return update


def accumulated(gradient: Callable, parts: int) -> Callable:
    """The function gradient(params, batch (B, ...), key, lmbda: None, scalar or (B,)), in `parts` parts of the batch.

    They are computed one after the other, each under noise of its own, and all that gradient returns is averaged.
    """

    def split(x: Array) -> Array:
        # Every parts-th photo, not a run of them: so each device has its share of each part, and nothing is moved.
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def mean(params: dict, batch: Array, key: Array, lmbda: Array | None):
        each = lmbda is not None and jnp.ndim(lmbda) == 1

        def add(total, part):
            number, photos, lmbdas = part
            result = gradient(params, photos, jax.random.fold_in(key, 1 + number), lmbdas if each else lmbda)
            return optax.tree.add(total, result), None

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, params, batch, key, lmbda))
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), split(batch), split(lmbda) if each else None))
        return jax.tree.map(lambda leaf: leaf / parts, total)

    return mean


def make_transform(config: Config) -> Callable[[dict, Array, Array, Array], Array]:
    """The pure function (params, crops (B, P, P, 3), step, key) -> z_1 of them, as the step of that number needs it.

    Chains on one transform, with one seed, learn from the same z_1.
    """
    model = NestedLatentModel(config)

    def transform(params: dict, crops: Array, step: Array, key: Array) -> Array:
        weights = hats(sample_lambdas(key, step, len(crops))) if config.rate == "variable" else None
        return model.apply({"params": params}, crops, weights, method="transformed")

    return transform


def sample_lambdas(key: Array, step: Array, count: int) -> Array:
    """(count,) lambdas of a step, even in their logarithm, for a model of variable rate; key: of the seed."""
    key = jax.random.fold_in(jax.random.fold_in(key, step), 0)
    low, high = math.log(LAMBDAS[0]), math.log(LAMBDAS[-1])
    # One from each of `count` equal parts of the range: every batch sees small and large ones.
    places = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    return jnp.exp(low + (high - low) * places)


def make_measure(config: Config) -> Callable[..., dict[str, Array]]:
    """The pure measure (params, crops (N, P, P, 3) in [0, 1], lmbda=None) -> metrics, the latents binned.

    lmbda: a scalar instead of the config's, as in `make_update`.
    """
    model = NestedLatentModel(config)

    def measure(params: dict, crops: Array, lmbda: Array | None = None) -> dict[str, Array]:
        weights = None
        if config.rate == "variable":  # in turns
            lmbda = jnp.resize(jnp.array(LAMBDAS), len(crops))
            weights = hats(lmbda)
        output = model.apply({"params": params}, crops, weights, method="binned")
        value, metrics = rate_distortion(config, output, crops, lmbda)
        return {"loss": value, **metrics}

    return measure


def make_validation(config: Config, crops: np.ndarray) -> Callable[[dict], dict[str, Array]]:
    """The jitted measure params -> metrics of fixed crops (N, P, P, 3) in [0, 1]."""
    measure = jax.jit(make_measure(config))
    # As NumPy gives them: on several hosts each has all of them.
    return lambda params: measure(params, crops)

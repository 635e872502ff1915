"""The training step: pure, the same for the same numbers, and it learns."""

import dataclasses

import jax
import numpy as np
import pytest

from nlvc.models.nested import TRANSFORM, NestedLatentModel
from nlvc.training.loop import abstract_state, create_state, make_train_step, make_update, make_validation


def distance(ours, other):
    """The largest change of any parameter."""
    changes = jax.tree.map(lambda a, b: np.max(np.abs(np.asarray(a) - np.asarray(b))), ours, other)
    return max(jax.tree.leaves(changes))


def adams(params):
    """The leaves that Adam moves: all but kernels, whose steps have no largest element to expect."""
    return [leaf for leaf in jax.tree.leaves(params) if leaf.ndim != 4]


# --- The state at step 0 ---


def test_the_first_state(first_state, config, assert_same):
    assert first_state.step == 0 and first_state.step.dtype == np.int32
    assert_same(first_state.ema, first_state.params)
    assert first_state.params["analysis_basis"].shape == (48, config.channels)
    for leaf in jax.tree.leaves(first_state):
        assert np.all(np.isfinite(leaf))


def test_the_abstract_state_is_of_the_same_shape(first_state, config):
    abstract = abstract_state(config)
    assert jax.tree.structure(abstract) == jax.tree.structure(first_state)
    for ours, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(first_state), strict=True):
        assert (ours.shape, ours.dtype) == (leaf.shape, leaf.dtype)


# --- The step ---


def test_the_step_depends_on_its_arguments_alone(fresh, train_step, batch_at, assert_same):
    def run():
        state, told = fresh(), []
        for number in range(3):
            state, metrics = train_step(state, batch_at(number))
            told.append(metrics)
        return jax.device_get((state, told))

    first = run()
    train_step(fresh(), batch_at(9))  # something else in between
    assert_same(run(), first)


def test_the_state_is_given_away_and_the_batch_is_not(fresh, train_step, batch_at):
    state, batch = fresh(), jax.device_put(batch_at(0))
    after, _ = train_step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not batch.is_deleted()
    np.testing.assert_array_equal(batch, batch_at(0))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_the_noise_is_another_at_every_step(fresh, train_step, batch_at):
    _, now = train_step(fresh(), batch_at(0))
    _, later = train_step(fresh().replace(step=jax.device_put(np.int32(1), jax.devices()[0])), batch_at(0))
    assert now["bpp"] != later["bpp"]
    assert now["bpp"] == pytest.approx(float(later["bpp"]), rel=0.3)


def test_metrics_are_the_terms_of_the_loss(fresh, train_step, batch_at, config):
    state, metrics = train_step(fresh(), batch_at(0))
    assert state.step == 1
    assert metrics.keys() == {"loss", "gradient_norm", "bpp", "bpp_levels", "mse", "psnr"}
    metrics = jax.device_get(metrics)
    assert metrics["bpp_levels"].shape == (2,) and np.all(metrics["bpp_levels"] > 0)
    assert metrics["bpp"] == pytest.approx(metrics["bpp_levels"].sum(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["bpp"] + config.lmbda * 255**2 * metrics["mse"], rel=1e-5)
    assert metrics["gradient_norm"] > 0


def test_the_first_update_is_as_large_as_the_schedule_says(fresh, first_state, train_step, batch_at, config):
    """Adam's first update of a parameter is its rate, whatever the gradient (unless that is almost nothing)."""
    state, _ = train_step(fresh(), batch_at(0))
    ours, first = adams(state.params), adams(first_state.params)
    assert distance(ours, first) == pytest.approx(config.learning_rate / 100, rel=0.02)


def test_one_program_trains_models_of_several_lambdas_and_seeds(fresh, config, batch_at):
    """With lambda and key as arguments it does what the steps of those models do."""
    update = jax.jit(make_update(config))
    for lmbda, seed in [(0.002, 5), (0.05, 6)]:
        ours, metrics = update(fresh(), batch_at(0), jax.random.key(seed), lmbda)
        step = make_train_step(dataclasses.replace(config, lmbda=lmbda, seed=seed))
        theirs, expected = step(fresh(), batch_at(0))
        assert metrics.keys() == expected.keys()
        for name in metrics:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4)
        assert ours.step == theirs.step == 1
        assert distance(ours.params, theirs.params) < 1e-6 < distance(ours.params, fresh().params)
    assert update._cache_size() == 1


def test_the_loss_falls_on_one_batch(fresh, train_step, batch_at, config):
    state, losses = fresh(), []
    for _ in range(config.steps):
        state, metrics = train_step(state, batch_at(0))
        losses.append(float(metrics["loss"]))
    assert state.step == config.steps
    assert np.all(np.isfinite(losses))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_running_mean_of_the_parameters(fresh, train_step, batch_at, config):
    """ema <- decay ema + (1 - decay) params, with a short memory in the first steps."""
    state = fresh()
    for number in range(6):
        before = jax.device_get(state.ema)
        state, _ = train_step(state, batch_at(number))
        decay = min(config.ema_decay, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), before, state.params)
        assert distance(state.ema, expected) < 4e-6
    # By now the updates are large enough for that to say something.
    assert distance(state.ema, state.params) > 1e-3 and distance(state.ema, before) > 1e-3


def test_the_memory_of_the_mean_is_at_last_that_of_the_configuration(fresh, first_state, train_step, batch_at, config):
    late = jax.device_put(np.int32(10**6), jax.devices()[0])
    state = jax.device_get(train_step(fresh().replace(step=late), batch_at(0))[0])
    decay = config.ema_decay
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, first_state.ema, state.params)
    # A tenth of a first update of 5e-5, where parameters of the size of ten have steps of 1e-6.
    assert distance(state.ema, expected) < 1e-6
    assert distance(adams(state.ema), adams(first_state.ema)) == pytest.approx(5e-6, abs=1e-6)


# --- Validation ---


def test_validation_is_always_the_same_measure(first_state, config, batch_at):
    """Under the same noise for every call and every seed, so that runs compare."""
    measure = make_validation(config, batch_at(3))
    other = make_validation(dataclasses.replace(config, seed=config.seed + 1), batch_at(3))
    first = measure(first_state.ema)
    assert first.keys() == {"loss", "bpp", "bpp_levels", "mse", "psnr"}
    assert first["loss"] == pytest.approx(float(first["bpp"] + config.lmbda * 255**2 * first["mse"]), rel=1e-5)
    for again in (measure(first_state.ema), other(first_state.ema)):
        for name in first:
            np.testing.assert_array_equal(first[name], again[name])
    assert measure(jax.tree.map(lambda leaf: leaf + 0.3, first_state.ema))["loss"] > first["loss"]


# --- The chain alone, on a given transform ---


@pytest.fixture(scope="module")
def chain(first_state, config, batch_at):
    """The configuration of another chain, and its state at step 0 on the transform of the first."""
    chain = dataclasses.replace(config, trained="chain", init_from="runs/a", L=3, strides=(4, 2, 1))
    transform = {name: first_state.params[name] for name in TRANSFORM}
    return chain, jax.device_get(create_state(chain, batch_at(3, count=64), transform))


def test_a_chain_starts_on_the_transform_that_it_is_given(chain, first_state, assert_same):
    config, state = chain
    assert set(TRANSFORM) < state.params.keys()
    for name in TRANSFORM:
        assert_same(state.params[name], first_state.params[name])
    abstract = abstract_state(config)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    # The optimiser keeps nothing of what it does not move.
    everything = abstract_state(dataclasses.replace(config, trained="all"))
    assert len(jax.tree.leaves(state.opt_state)) < len(jax.tree.leaves(everything.opt_state))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_transform_of_a_chain_stays(chain, batch_at, assert_same, accumulate):
    config, first = chain
    config = dataclasses.replace(config, accumulate=accumulate)
    step = make_train_step(config)
    state = jax.device_put(jax.tree.map(np.copy, first), jax.devices()[0])
    for number in range(2):
        state, metrics = step(state, batch_at(number))
    assert metrics.keys() == {"loss", "gradient_norm", "bpp", "bpp_levels"}
    assert metrics["loss"] == metrics["bpp"]
    state = jax.device_get(state)
    for name, after in state.params.items():
        if name in TRANSFORM:
            assert_same(after, first.params[name])
            assert_same(state.ema[name], first.params[name])
        elif name != "log_scale_3":  # p(z_3) is predefined
            assert distance(after, first.params[name]) > 0, name
    assert make_validation(config, batch_at(0))(state.params).keys() > {"psnr", "mse"}


def test_the_rates_are_those_of_the_whole_pass(chain, batch_at):
    config, first = chain
    model, x, key = NestedLatentModel(config), batch_at(0), jax.random.key(1)
    whole = model.apply({"params": first.params}, x, key)
    z = model.apply({"params": first.params}, x, method="transformed")
    rates = model.apply({"params": first.params}, z, key, method="rates")
    assert rates.x_hat is None
    for ours, other in zip(rates.bits, whole.bits, strict=True):
        np.testing.assert_array_equal(ours, other)

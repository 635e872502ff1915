"""Checkpoints: what is saved comes back to the last bit, and a resumed run is the uninterrupted one."""

import dataclasses
import shutil

import jax
import pytest

from nlvc.training.checkpoint import Checkpoints
from nlvc.training.loop import abstract_state


@pytest.fixture
def advance(train_step, batch_at):
    """advance(state, steps): the state after so many steps more; batch k is that of step k, as in a real run."""

    def run(state, steps):
        for number in range(int(state.step), int(state.step) + steps):
            state, _ = train_step(state, batch_at(number))
        return state

    return run


def test_a_fresh_folder_has_nothing_to_restore(tmp_path, fresh):
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.restore(fresh()) is None


def test_a_state_comes_back_to_the_last_bit(tmp_path, fresh, advance, assert_same):
    state = advance(fresh(), 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1.0)
    with Checkpoints(tmp_path) as checkpoints:
        like = fresh()
        restored = checkpoints.restore(like)
    assert_same(restored, jax.device_get(state))
    for leaf, other in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True):
        assert leaf.sharding == other.sharding


def test_a_state_comes_back_without_one_to_compare(tmp_path, config, fresh, advance, assert_same):
    state = advance(fresh(), 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1.0)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract_state(config))
    assert_same(restored, jax.device_get(state))
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {leaf.sharding for leaf in jax.tree.leaves(fresh())}


def test_a_saved_state_may_be_given_away_at_once(tmp_path, fresh, advance, train_step, batch_at, assert_same):
    state = advance(fresh(), 1)
    expected = jax.tree.map(lambda leaf: leaf.copy(), jax.device_get(state))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1.0)
        for number in range(3):  # the first of these frees or overwrites what is being written
            state, _ = train_step(state, batch_at(number))
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(fresh()), expected)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, fresh, advance, assert_same):
    """Parameters, their mean, the optimiser's moments: k steps, a new process's worth of forgetting, k steps more."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(advance(fresh(), 4), 1.0)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = advance(checkpoints.restore(fresh()), 4)
    assert resumed.step == 8
    assert_same(resumed, advance(fresh(), 8))


def test_the_newest_of_three_is_restored(tmp_path, fresh, advance):
    state = fresh()
    with Checkpoints(tmp_path) as checkpoints:
        for _ in range(5):
            state = advance(state, 1)
            checkpoints.save(state, 1.0)
            checkpoints.save(state, 1.0)  # a step that is there already is not written again
        assert checkpoints.restore(fresh()).step == 5
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == ["3", "4", "5"]


def test_an_unfinished_checkpoint_is_not_restored(tmp_path, fresh, advance, assert_same):
    """What a killed process leaves: a folder under Orbax's temporary name."""
    state = advance(fresh(), 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1.0)
    folder = tmp_path / "checkpoints"
    unfinished = folder / "2.orbax-checkpoint-tmp"
    shutil.copytree(folder / "1", unfinished)
    (unfinished / "_CHECKPOINT_METADATA").unlink(missing_ok=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(fresh()), jax.device_get(state))
        state = advance(state, 1)
        checkpoints.save(state, 1.0)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(fresh()).step == 2


def test_the_best_is_kept_however_old_it_is(tmp_path, fresh, advance, config):
    patient = dataclasses.replace(config, patience=2, checkpoint_every=2)
    state = fresh()
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.exhausted(patient)
        for loss in (3.0, 1.0, 2.0, 2.0, 1.5):
            state = advance(state, 1)
            checkpoints.save(state, loss)
        assert not checkpoints.exhausted(patient)  # three steps of the four
        checkpoints.save(advance(state, 1), 1.1)
        assert checkpoints.exhausted(patient) and not checkpoints.exhausted(config)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(fresh(), best=True).step == 2
        assert checkpoints.restore(fresh()).step == 6
        assert checkpoints.exhausted(patient)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert kept == ["2", "4", "5", "6"]

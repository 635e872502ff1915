"""How long the devices wait for data: all of the time, none of it, and the part in which no step is running."""

import time

import jax
import numpy as np
import pytest

from nlvc.config import tiny
from nlvc.training import devices
from nlvc.training.feed import Feed
from nlvc.training.machine import Machine


@pytest.fixture(scope="module")
def mesh():
    return devices.make_mesh(tiny(), Machine())


def slow(seconds):
    while True:
        time.sleep(seconds)
        yield np.ones((2, 4), np.float32)


class Step:
    """Stands for arrays that are ready some time after they were asked for."""

    def __init__(self, seconds):
        self.end = time.perf_counter() + seconds

    def block_until_ready(self):
        time.sleep(max(self.end - time.perf_counter(), 0))


def idle_share(mesh, source, step, steps=6):
    with Feed(slow(source), mesh) as feed:
        began = time.perf_counter()
        for _ in range(steps):
            feed.take()
            feed.watch(Step(step))
        return feed.idle / (time.perf_counter() - began)


def test_a_slow_source_is_waited_for(mesh):
    assert 0.8 < idle_share(mesh, source=0.1, step=0) <= 1


def test_a_slow_step_is_not(mesh):
    assert 0 <= idle_share(mesh, source=0, step=0.1) < 0.2


def test_waiting_during_a_step_costs_nothing(mesh):
    """A batch takes 0.15 s and a step 0.1 s of them, so a third of the time is lost and not all of it."""
    assert 0.2 < idle_share(mesh, source=0.15, step=0.1, steps=10) < 0.6


def test_at_most_one_step_runs_when_a_batch_is_asked_for(mesh):
    with Feed(slow(0), mesh) as feed:
        steps = [Step(0.05 * number) for number in range(1, 5)]
        for step in steps:
            feed.take()
            feed.watch(step)
        assert time.perf_counter() > steps[1].end


def test_a_batch_is_placed_by_its_rows(mesh):
    with Feed(iter([np.arange(8, dtype=np.float32).reshape(2, 4)]), mesh) as feed:
        batch = feed.take()
        with pytest.raises(StopIteration):
            feed.take()
    assert batch.sharding.spec == jax.sharding.PartitionSpec("batch")
    np.testing.assert_array_equal(batch, np.arange(8).reshape(2, 4))

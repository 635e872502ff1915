"""The Ray engine: what it asks for, tells and survives, with a fake of Ray, and with Ray where it is installed."""

import importlib.util
import os
import queue
import sys
import threading
import types
from concurrent import futures
from pathlib import Path

import pytest

from nlvc.config import ConfigError, tiny
from nlvc.sweeping import cluster
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.plan import Pack
from nlvc.sweeping.progress import DONE, FAILED, TRAINING, Progress

ROOT = Path(__file__).parents[2]


class Queue(queue.Queue):
    def get_nowait_batch(self, count):
        return [self.get_nowait() for _ in range(count)]

    def shutdown(self):
        pass


class FakeRay(types.ModuleType):
    """As much of Ray as the engine uses, on threads: as many tasks at once as there are GPUs, or CPUs."""

    class RayError(Exception):
        pass

    class TaskCancelledError(RayError):
        pass

    def __init__(self, nodes):
        super().__init__("ray")
        self._nodes, self.asked, self.cancelled = nodes, [], []
        self.exceptions = types.SimpleNamespace(RayError=self.RayError, TaskCancelledError=self.TaskCancelledError)
        self.pool = futures.ThreadPoolExecutor(1)

    def init(self, address, **_):
        if address == "nowhere:1":
            raise ConnectionError("could not\nconnect")

    def nodes(self):
        return [{"Alive": True, "Resources": node} for node in self._nodes]

    def remote(self, **options):
        self.asked.append(options)
        submit = self.pool.submit
        return lambda function: types.SimpleNamespace(remote=lambda *arguments: submit(function, *arguments))

    def wait(self, tasks, timeout):
        done, running = futures.wait(tasks, timeout, futures.FIRST_COMPLETED)
        return list(done), list(running)

    def get(self, task):
        try:
            return task.result()
        except futures.CancelledError:
            raise self.TaskCancelledError from None

    def cancel(self, task):
        self.cancelled.append(task)
        task.cancel()


@pytest.fixture
def ray(monkeypatch):
    """ray(nodes' resources...) -> the fake, which `import ray` gives."""

    def install(*nodes):
        fake = FakeRay(nodes)
        monkeypatch.setitem(sys.modules, "ray", fake)
        monkeypatch.setitem(sys.modules, "ray.util", types.ModuleType("ray.util"))
        monkeypatch.setitem(sys.modules, "ray.util.queue", types.SimpleNamespace(Queue=Queue))
        return fake

    return install


def pack(*names, devices=1):
    return Pack(tuple(Cell(name, tiny()) for name in names), devices)


def states(told):
    return [(progress.cell, progress.state) for progress in told if progress]


@pytest.mark.parametrize(
    ("nodes", "cpus", "devices", "resources"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}], None, 1, {"num_cpus": 4, "num_gpus": 0}),
        ([{"CPU": 8.0}], 2, 1, {"num_cpus": 2, "num_gpus": 0}),
        ([{"CPU": 8.0}, {"CPU": 64.0, "GPU": 4.0}], None, 4, {"num_cpus": 1, "num_gpus": 2}),
    ],
)
def test_what_a_pack_asks_for(ray, monkeypatch, nodes, cpus, devices, resources):
    fake = ray(*nodes)
    monkeypatch.setattr(cluster, "work", lambda *_: None)
    engine = cluster.Cluster(None, cpus)
    assert engine.devices == devices
    list(engine.run([pack("a", devices=2 if devices > 1 else 1)], lambda: False))
    (asked,) = fake.asked
    assert {name: asked[name] for name in resources} == resources
    assert asked["max_calls"] == 1 and asked["max_retries"] > 0


def test_all_packs_are_worked_on_where_the_command_is(ray, monkeypatch):
    ray({"CPU": 2.0})
    folders = []

    def work(folder, pack, told):
        folders.append(folder)
        for state in (TRAINING, DONE):
            told.put(Progress(pack.cells[0].name, state))

    monkeypatch.setattr(cluster, "work", work)
    told = states(cluster.Cluster(None, None).run([pack("a"), pack("b"), pack("c")], lambda: False))
    assert told == [(name, state) for name in "abc" for state in (TRAINING, DONE)]
    assert folders == [os.getcwd()] * 3


def test_a_process_that_dies_fails_what_it_has_not_finished(ray, monkeypatch):
    fake = ray({"CPU": 2.0})

    def work(folder, pack, told):
        told.put(Progress(pack.cells[0].name, DONE))
        if len(pack.cells) > 1:
            raise fake.RayError("the worker died\nunexpectedly")

    monkeypatch.setattr(cluster, "work", work)
    told = [p for p in cluster.Cluster(None, None).run([pack("a", "b"), pack("c")], lambda: False) if p]
    assert sorted(states(told)) == [("a", DONE), ("b", FAILED), ("c", DONE)]
    assert next(p.text for p in told if p.cell == "b") == "the worker died unexpectedly"


def test_when_stopping_everything_is_cancelled(ray, monkeypatch):
    fake, gate = ray({"CPU": 2.0}), threading.Event()
    monkeypatch.setattr(cluster, "work", lambda *_: None)
    fake.pool.submit(gate.wait, 30)  # so that neither pack has begun
    run = cluster.Cluster(None, None).run([pack("a"), pack("b")], lambda: True)
    assert states(run) == []
    gate.set()
    assert len(fake.cancelled) == 2


def test_a_cluster_that_cannot_be_reached(ray):
    ray({"CPU": 2.0})
    with pytest.raises(ConfigError, match="--engine ray: could not connect"):
        cluster.Cluster("nowhere:1", None)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[ray\]'"):
        cluster.Cluster(None, None)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_two_workers_of_ray_itself(run_python, tmp_path):
    """Two packs, each in a process of its own, on this computer."""
    model = "--preset=tiny --L=1 --strides 4 --channels=4 --filters=4 --latent-filters=4 --patch-size=16 --steps=6"
    grid = "--transform=plain --no-linear-path --lmbda 0.01 0.1 --prior logistic laplace --checkpoint-every=3"
    sweep = ["-m", "nlvc.sweep", *model.split(), *grid.split(), "--pack=2", f"--workdir={tmp_path}"]
    done = run_python(*sweep, "--engine=ray", "--cpus=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"4 of 4 cells are done; results: {tmp_path / 'results.csv'}\n")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 4 * 2
    again = run_python(*sweep)  # and everything is finished for the other engine
    assert again.returncode == 0 and "training" not in again.stdout

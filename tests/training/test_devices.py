"""Data parallelism: the same losses on any number of devices and processes, and checkpoints that fit all of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from several_devices import Run, small

from nlvc.config import ConfigError, tiny
from nlvc.training import devices
from nlvc.training.machine import Machine

SCRIPT = Path(__file__).parents[1] / "several_devices.py"
ROOT = SCRIPT.parents[1]
# On a busy machine the first of eight devices waits long for the last; by default XLA ends the process after 40 s.
PATIENCE = [f"--xla_cpu_collective_{name}timeout_seconds=600" for name in ("", "call_terminate_")]
SAME = 1e-5  # relative; sums over the batch are rounded in another order


def start(count, *arguments):
    """The script in a process of its own that sees `count` devices."""
    flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={count}", *PATIENCE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(*processes):
    """What each of some scripts has printed at last."""
    try:
        outputs = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def eight(folder):
    return told(start(8, folder, 1))[0]


@pytest.fixture(scope="module")
def processes(folder, eight):
    """What each of two processes has to tell, which have met on this computer, with two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator=localhost:{free.getsockname()[1]}"
    return told(*[start(2, folder, 1, address, "--processes=2", f"--process={number}") for number in range(2)])


def test_eight_devices_train_as_one_does(eight):
    assert eight["devices"] == "devices: 8 cpu (cpu)"
    assert eight["many"] == pytest.approx(eight["one"], rel=SAME)
    assert len(set(eight["one"])) == 4  # steps that do nothing would also agree


def test_a_checkpoint_of_eight_devices_goes_on_on_one_and_the_reverse(eight):
    assert eight["many, resumed on one"] == pytest.approx(eight["one"], rel=SAME)
    assert eight["one, resumed on many"] == pytest.approx(eight["one"], rel=SAME)


def test_devices_talk_of_nothing_but_sums(eight):
    assert eight["messages"] == ["all-reduce"]


def test_two_processes_train_as_one_does(eight, processes):
    for process in processes:
        assert process["devices"] == "devices: 4 cpu (cpu) of 2 processes"
        assert process["many"] == pytest.approx(eight["one"], rel=SAME)
    assert processes[0]["many"] == processes[1]["many"]


def test_checkpoints_of_two_processes_and_of_one_are_alike(eight, processes, folder):
    for process in processes:
        assert process["one, resumed on many"] == pytest.approx(eight["one"], rel=SAME)
    one = Run(small(), Machine(devices=1))
    ours, expected = (jax.device_get(one.restore(folder / name)) for name in ("processes", "one"))
    assert ours.step == expected.step == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, expected)


def test_what_one_process_knows_all_learn(processes):
    assert [process["anywhere"] for process in processes] == [[True, False]] * 2
    assert devices.anywhere(True) is True and devices.anywhere(False) is False


@pytest.mark.slow
@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (4, 1), (8, 1), (2, 4), (4, 2)])
def test_the_same_batch_on_more_devices(tmp_path, count, accumulate):
    (report,) = told(start(8, tmp_path, accumulate, f"--devices={count}"))
    assert report["devices"] == "devices: " + ("8" if count == 8 else f"{count} of 8") + " cpu (cpu)"
    for name in ("many", "many, resumed on one", "one, resumed on many"):
        assert report[name] == pytest.approx(report["one"], rel=SAME), name
    assert report["messages"] == ["all-reduce"]


# --- Which devices share a batch ---


class Device:
    platform, device_kind = "gpu", "Toy"

    def __init__(self, number, process):
        self.id, self.process_index = number, process


@pytest.fixture
def cluster(monkeypatch):
    """cluster(4, 2): process 0 has 4 devices, process 1 has 2."""

    def make(*counts):
        places = [(process, number) for process, count in enumerate(counts) for number in range(count)]
        toys = [Device(number, process) for process, number in sorted(places, key=lambda place: (-place[0], place[1]))]
        monkeypatch.setattr(jax, "devices", lambda: toys)
        monkeypatch.setattr(jax, "device_count", lambda: len(toys))
        monkeypatch.setattr(jax, "process_count", lambda: len(counts))

    class Mesh:
        def __init__(self, chosen, names, axis_types):
            assert (names, axis_types) == (("batch",), (jax.sharding.AxisType.Auto,))
            self.devices, self.size = chosen, chosen.size

    monkeypatch.setattr(devices, "Mesh", Mesh)
    return make


def chosen(machine=None, **fields):
    mesh = devices.make_mesh(tiny(**fields), machine or Machine())
    return [(d.process_index, d.id) for d in mesh.devices], devices.describe(mesh)


def test_all_devices_or_as_many_as_share_evenly(cluster):
    cluster(6)
    assert chosen(batch_size=12) == ([(0, n) for n in range(6)], "devices: 6 gpu (Toy)")
    assert chosen(batch_size=8) == ([(0, n) for n in range(4)], "devices: 4 of 6 gpu (Toy)")
    assert chosen(batch_size=7)[1] == "devices: 1 of 6 gpu (Toy)"
    assert chosen(batch_size=12, accumulate=4)[1] == "devices: 3 of 6 gpu (Toy)"
    assert chosen(Machine(devices=2), batch_size=12) == ([(0, 0), (0, 1)], "devices: 2 of 6 gpu (Toy)")
    cluster(1)
    assert chosen(batch_size=7) == ([(0, 0)], "device: gpu (Toy)")


def test_of_every_process_as_many_devices(cluster):
    cluster(4, 2)
    expected = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert chosen(batch_size=8) == (expected, "devices: 4 of 6 gpu (Toy) of 2 processes")


@pytest.mark.parametrize(
    ("counts", "machine", "fields", "words"),
    [
        ((2,), Machine(devices=3), {"batch_size": 12}, ["devices=3", "there are 2"]),
        ((4,), Machine(devices=3), {"batch_size": 8}, ["batch_size=8:", "by 3 devices", "multiple of 3"]),
        ((4,), Machine(devices=4), {"batch_size": 8, "accumulate": 4}, ["in 4 parts", "multiple of 16"]),
        ((1, 1), Machine(), {"batch_size": 3}, ["batch_size=3:", "by 2 devices", "multiple of 2"]),
    ],
)
def test_a_batch_that_cannot_be_shared(cluster, counts, machine, fields, words):
    cluster(*counts)
    with pytest.raises(ConfigError) as caught:
        chosen(machine, **fields)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)

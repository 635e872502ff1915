"""How a run is computed: its flags beside those of the experiment, and what cannot be."""

import dataclasses
import re

import pytest

from nlvc.config import Config, ConfigError, base, parse_flags, tiny
from nlvc.training import devices, machine
from nlvc.training.machine import Machine


def test_one_flat_command_line():
    flags = ["--L=5", "--workers=4", "--prior=logistic", "--devices=2", "--profile"]
    assert parse_flags(flags, Machine) == (base(L=5), Machine(workers=4, devices=2, profile=True))
    assert parse_flags(["--preset=tiny"], Machine) == (tiny(), Machine())
    host = ["--coordinator=10.0.0.1:1234", "--processes=3", "--process=2"]
    assert parse_flags(host, Machine)[1] == Machine(coordinator="10.0.0.1:1234", processes=3, process=2)


def test_help_names_every_flag_of_both(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_flags(["--help"], Machine)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    fields = [*dataclasses.fields(Config), *dataclasses.fields(Machine)]
    assert [field.name for field in fields if f"--{field.name.replace('_', '-')}" not in text] == []


def test_none_of_it_is_saved_with_a_run():
    names = {field.name for field in dataclasses.fields(Machine)}
    assert names.isdisjoint(field.name for field in dataclasses.fields(Config))


IMPOSSIBLE = {
    "no negative number of workers": (["--workers=-1"], "workers=-1"),
    "nor of devices": (["--devices=-2"], "devices=-2"),
    "processes without a place to meet": (["--processes=2", "--process=0"], "--coordinator"),
    "a process without others": (["--process=1"], "--coordinator"),
    "a coordinator without a port": (["--coordinator=host", "--processes=2", "--process=0"], "HOST:PORT"),
    "a coordinator of one": (["--coordinator=host:1", "--process=0"], "processes=0"),
    "no number": (["--coordinator=host:1", "--processes=2"], "process=-1"),
    "a number too large": (["--coordinator=host:1", "--processes=2", "--process=2"], "process=2"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_is_one_line(case, capsys):
    flags, word = case
    with pytest.raises(ConfigError, match=re.escape(word)) as caught:
        parse_flags(flags, Machine)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("environment", "flags", "several"),
    [
        ({}, {}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, {}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, {}, False),
        ({"SLURM_NTASKS": "4"}, {}, False),  # so it is in a batch script, outside of srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {"processes": 1}, False),
        ({}, {"coordinator": "host:1", "processes": 2, "process": 1}, True),
    ],
)
def test_a_lone_process_looks_for_no_others(monkeypatch, environment, flags, several):
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Machine(**flags).several is several
    asked = []
    monkeypatch.setattr(devices.jax.distributed, "initialize", lambda *arguments: asked.append(arguments))
    devices.join(Machine(**flags))
    assert asked == [("host:1", 2, 1) if flags.get("coordinator") else ()] * several


def test_processes_that_do_not_meet(monkeypatch):
    def fail():
        raise RuntimeError("no cluster\nand more")

    monkeypatch.setenv(machine._TASKS[0], "2")
    monkeypatch.setattr(devices.jax.distributed, "initialize", fail)
    with pytest.raises(ValueError, match=r"^the processes have not met \(no cluster\); give --coordinator[^\n]*$"):
        devices.join(Machine())

"""The order in which packs get devices, with work that trains nothing."""

import threading

from nlvc.config import tiny
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.local import Local
from nlvc.sweeping.plan import Pack
from nlvc.sweeping.progress import DONE, TRAINING, Progress


def pack(name, devices):
    return Pack((Cell(name, tiny()),), devices)


class Work:
    """What packs do here: they note the devices that they have, and may wait for a signal of the test."""

    def __init__(self):
        self.lock, self.busy, self.most, self.order = threading.Lock(), [], 0, []
        self.gates = {}

    def __call__(self, cells, devices, tell, stopping):
        name = cells[0].name
        with self.lock:
            assert not set(devices) & set(self.busy)
            self.busy += devices
            self.most = max(self.most, len(self.busy))
            self.order.append(name)
        tell(Progress(name, TRAINING))
        if name in self.gates:
            assert self.gates[name].wait(30)
        with self.lock:
            self.busy = [device for device in self.busy if device not in devices]
        tell(Progress(name, DONE))


def states(told):
    return [(progress.cell, progress.state) for progress in told if progress]


def test_all_packs_are_done_one_after_the_other_on_one_device():
    work = Work()
    told = states(Local(work, devices="a").run([pack("x", 1), pack("y", 1)], lambda: False))
    assert told == [("x", TRAINING), ("x", DONE), ("y", TRAINING), ("y", DONE)]
    assert work.most == 1


def test_packs_share_the_devices():
    work = Work()
    packs = [pack("wide", 3), pack("one", 1), pack("two", 2), pack("all", 4), pack("last", 1)]
    work.gates = {name: threading.Event() for name in ("wide", "one")}
    told = []
    for progress in Local(work, devices="abcd").run(packs, lambda: False):
        told += states([progress])
        if ("wide", TRAINING) in told and ("one", TRAINING) in told:  # both at once, or neither gate would open
            for gate in work.gates.values():
                gate.set()
    assert sorted(name for name, state in told if state == DONE) == ["all", "last", "one", "two", "wide"]
    assert set(work.order[:2]) == {"wide", "one"}
    assert work.order[2:] == ["two", "all", "last"]
    assert work.most == 4


def test_when_stopping_no_pack_starts():
    work, stopped = Work(), []
    told = []
    for progress in Local(work, devices="a").run([pack("x", 1), pack("y", 1)], lambda: bool(stopped)):
        told += states([progress])
        stopped.append(1)
    assert told == [("x", TRAINING), ("x", DONE)]
    assert list(Local(work, devices="a").run([pack("x", 1)], lambda: True)) == []


def test_it_says_what_it_runs_on():
    assert str(Local()).endswith("(cpu)")

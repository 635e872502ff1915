"""Damaged files by the hundred, and with -m slow by the hundred thousand: see benchmarks/fuzzing.py."""

import importlib
import signal
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from nlvc import image_codec
from nlvc.image_codec import CodecError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FILES = 320


@pytest.fixture(scope="module")
def fuzzing():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("fuzzing")


@pytest.fixture(scope="module")
def fuzzer(fuzzing):
    yield fuzzing.Fuzzer(fuzzing.MODEL, seed=1, max_pixels=1_000_000)
    tracemalloc.stop()


def test_damaged_files(fuzzing, fuzzer):
    found = [(index, fuzzer.examine(index)) for index in range(FILES)]
    table = fuzzing.table(found)
    print(table)
    assert not [(index, outcome) for index, outcome in found if outcome.is_bad()]
    assert all(f"{kind} " in table for kind in fuzzing.KINDS)
    words = [outcome.decoded for _, outcome in found], [outcome.salvaged for _, outcome in found]
    assert {"error", "right"} <= set(words[0]) <= {"error", "right", "other"}
    assert {"error", "right", "lost"} <= set(words[1]) <= {"", "error", "right", "lost", "other"}
    assert words[1].count("") == FILES * 3 // 4


def test_a_file_depends_on_its_number_alone(fuzzing, fuzzer):
    assert len({fuzzer.data(index) for index in range(FILES)}) > 0.9 * FILES
    assert fuzzer.data(77) == fuzzer.data(77)
    assert 1 < sum(fuzzer.data(index) in [base.data for base in fuzzer.bases] for index in range(FILES)) < 0.1 * FILES


def fails(error):
    def decode(*_, **__):
        raise error

    return decode


def warns(*_, **__):
    warnings.warn("one thing and another", stacklevel=1)


@pytest.mark.parametrize(
    ("decode", "word"),
    [
        (fails(KeyError("tile")), "crash"),
        (fails(ValueError("could not be broadcast together")), "crash"),
        (fails(MemoryError()), "crash"),
        (warns, "crash"),
        (fails(CodecError("one\ntwo")), "long"),
        (fails(CodecError("")), "long"),
        (fails(CodecError("one")), "error"),
        (lambda *_, **__: np.zeros((20, 30), np.uint8), "wrong"),
    ],
)
def test_faults_are_seen(fuzzing, fuzzer, monkeypatch, decode, word):
    monkeypatch.setattr(image_codec, "decompress", decode)
    outcome = fuzzer.examine(0)
    assert outcome.decoded == word
    assert outcome.is_bad() == (word != "error")


def test_a_silent_loss_is_seen(fuzzing, fuzzer, monkeypatch):
    monkeypatch.setattr(image_codec, "salvage", lambda *_, **__: (np.zeros((20, 30), np.uint8), []))
    outcome = fuzzer.examine(0)
    assert outcome.salvaged == "wrong"
    assert outcome.is_bad()


def test_memory_and_time_are_seen(fuzzing, fuzzer, monkeypatch):
    monkeypatch.setattr(image_codec, "decompress", lambda *_, **__: np.empty(int(2.1 * fuzzer.allowed), np.uint8)[:1])
    assert fuzzer.examine(0).memory > 2
    assert fuzzer.examine(0).is_bad()

    def slow(*_, **__):
        begin = time.process_time()
        while time.process_time() < begin + 0.2:
            pass
        raise CodecError("slow")

    monkeypatch.setattr(image_codec, "decompress", slow)
    assert not fuzzer.examine(0).is_bad()
    monkeypatch.setattr(fuzzing, "SECONDS", 0.1)
    assert fuzzer.examine(0).is_bad()


def test_processes_that_die_or_hang(fuzzing, monkeypatch, tmp_path):
    """Each costs its file, and no other."""
    (tmp_path / "bad_work.py").write_text(
        "import os, signal, time\n"
        "def work(connection, first, end, ends):\n"
        "    for index in range(first, end):\n"
        "        ends.get(index, lambda: None)()\n"
        "        connection.send(index)\n"
        "def dies(): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def hangs(): time.sleep(600)\n"
        "def loops():\n"
        "    signal.setitimer(signal.ITIMER_PROF, 0.1)\n"
        "    while True: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    bad = importlib.import_module("bad_work")
    monkeypatch.setattr(fuzzing, "PATIENCE", 10)
    found = fuzzing.supervised(5, 12, {7: bad.dies, 9: bad.hangs, 11: bad.loops}, bad.work)
    assert [index for index, _ in found] == list(range(5, 12))
    assert [index for index, outcome in found if outcome == index] == [5, 6, 8, 10]
    faults = [outcome for index, outcome in found if outcome != index]
    ends = [f"its process ended with -{number.value}" for number in (signal.SIGSEGV, signal.SIGPROF)]
    assert [fault.remark for fault in faults] == [ends[0], "hangs", ends[1]]
    assert all(fault.is_bad() for fault in faults)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files(run_python):
    done = run_python("benchmarks/fuzzing.py", "--files", "100000", timeout=6 * 3600)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")

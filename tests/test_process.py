"""The allocator's settings: asked for where there is something to ask, and harmless elsewhere."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from nlvc.process import keep_freed_memory


@pytest.fixture
def asked(monkeypatch):
    """The calls of mallopt, none of which reaches the process that runs the tests."""
    calls = []
    library = SimpleNamespace(mallopt=lambda name, value: calls.append((name, value)) or 1)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return calls


def test_the_gnu_allocator_is_asked_to_keep_large_blocks(asked):
    keep_freed_memory()
    # malloc.h: M_MMAP_MAX = -4, M_TRIM_THRESHOLD = -1, M_TOP_PAD = -2.
    assert dict(asked).keys() == {-4, -1, -2} and len(asked) == 3
    assert dict(asked)[-4] == 0  # no block is a mapping of its own
    assert all(0 <= value < 2**31 for _, value in asked)  # a C int


def test_another_c_library_is_left_alone(asked, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    assert asked == []


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_another_system_is_left_alone(asked, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    keep_freed_memory()
    assert asked == []


def test_the_real_allocator_takes_it(run_python):
    program = "from nlvc.process import keep_freed_memory; keep_freed_memory(); print(len(bytes(1 << 26)))"
    done = run_python("-c", program)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(1 << 26), "")

"""The allocator's settings, asked for where there is something to ask; and programs kept for the next start."""

import ctypes
import sys
from pathlib import Path
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


PROGRAM = """
import sys
from nlvc.process import keep_programs
import jax
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.config.jax_compilation_cache_dir, jax.jit(lambda x: 2 * x + 1)(20.5))
"""


@pytest.fixture
def start(run_python, monkeypatch, tmp_path):
    """A function that runs PROGRAM with a fresh home and says (folder, result) of what it prints."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))

    def run():
        done = run_python("-c", PROGRAM)
        assert (done.returncode, done.stderr) == (0, "")
        folder, result = done.stdout.rsplit(maxsplit=1)
        return Path(folder), float(result)

    return run


def test_programs_are_kept_in_the_users_cache(start, tmp_path):
    folder, result = start()
    assert result == 42 and folder.is_relative_to(tmp_path) and folder.name.startswith("programs-")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*-cache")}
    assert kept
    assert start() == (folder, 42)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*-cache")} == kept


def test_half_a_program_is_compiled_again_in_silence(start):
    folder, _ = start()
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    assert start() == (folder, 42)


def test_a_folder_of_the_users_own_choice(start, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert start() == (tmp_path / "mine", 42)

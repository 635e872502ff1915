"""A file is there whole or not at all, and its predecessor stays until then."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nlvc.files import remove_leftovers, write_whole


def test_writes(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, b"one")
    assert path.read_bytes() == b"one"
    write_whole(path, b"")
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_any_length_and_script(tmp_path):
    for name in ("x" * 255, "相" * 80, ".hidden", "two words", "a.b.c"):
        write_whole(tmp_path / name, name.encode())
        assert (tmp_path / name).read_bytes() == name.encode()
    assert len(list(tmp_path.iterdir())) == 5


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("place", "name"), [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failure_leaves_everything_as_it_was(tmp_path, monkeypatch, place, name, before):
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(place, name, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before] * (before is not None)


def test_the_file_appears_when_it_is_whole_and_on_the_disk(tmp_path, monkeypatch):
    path, sizes = tmp_path / "a.bin", []
    path.write_bytes(b"old")

    def fsync(number):
        assert path.read_bytes() == b"old"
        sizes.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, bytes(100_000))
    assert sizes == [100_000]
    assert path.stat().st_size == 100_000


def test_a_folder_that_is_missing_or_in_the_way(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "a.bin", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_threads_write_names_that_begin_alike(tmp_path):
    names = [f"{'a long name ' * 10}{number:03}" for number in range(64)]

    def write(name):
        write_whole(tmp_path / name, name.encode() * 1000)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, names))
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == name.encode() * 1000


KILLED = """
import os, signal, sys
from pathlib import Path
from nlvc.files import write_whole
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), b"half")
"""


@pytest.mark.parametrize("name", ["photo.nlvc", "相" * 80, "two\nlines"])
def test_what_a_killed_process_has_left_is_removed(tmp_path, name):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".") and left.name.endswith(".tmp")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_left_over_stays(tmp_path, monkeypatch):
    """Files of others, and what a process that still runs is about to rename."""
    for name in (".photo.tmp", ".photo.nlvc.123.tmp", "photo.nlvc", ".a.0123abcd-0123abcd-1.tmp"):
        (tmp_path / name).write_bytes(b"x")
    before = {path.name for path in tmp_path.iterdir()}
    seen = []

    def fsync(_):
        remove_leftovers(tmp_path)
        seen.extend({path.name for path in tmp_path.iterdir()} - before)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "new.nlvc", b"y")
    assert len(seen) == 1
    assert {path.name for path in tmp_path.iterdir()} == before | {"new.nlvc"}


def test_what_another_computer_has_left_is_removed_later(tmp_path):
    left = tmp_path / ".photo.nlvc.0123abcd-0123abcd-1.tmp"
    left.write_bytes(b"half")
    for age, stays in ((0, True), (3000, True), (4000, False)):
        os.utime(left, (left.stat().st_atime, left.stat().st_mtime - age))
        remove_leftovers(tmp_path)
        assert left.exists() == stays
        if stays:
            os.utime(left)


def test_a_folder_without_leftovers(tmp_path):
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")

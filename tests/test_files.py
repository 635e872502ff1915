"""A file is there whole or not at all, and its predecessor stays until then."""

import errno
import os
from pathlib import Path

import pytest

from nlvc.files import write_whole


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

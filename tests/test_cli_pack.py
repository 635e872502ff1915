"""`nlvc pack`: what it says, what it refuses, and that OUT appears whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlvc import data
from nlvc.data.packed import INDEX

ROOT = Path(__file__).parents[1]


def save(path, height, width, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path):
    for number in range(6):
        save(tmp_path / "photos" / "sub" / f"{number}.png", 20 + number, 30, seed=number)
    return tmp_path / "photos"


def test_a_folder_is_packed(nlvc, source, tmp_path):
    (source / "broken.jpg").write_text("no picture")
    before = contents(source)
    status, text, err = nlvc("pack", source, tmp_path / "new" / "out")
    assert status == 0
    assert err == "nlvc: cannot read broken.jpg: not a picture in a format that Pillow knows\n"
    assert text.startswith(f"{tmp_path / 'new' / 'out'}: 6 photos, 1 left out as unreadable, ")
    assert text.count("\n") == 1
    assert contents(tmp_path / "new" / "out").keys() == {INDEX, "photos-00000.array_record"}
    assert contents(source) == before
    assert len(data.photos(tmp_path / "new" / "out", "all")) == 6
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_jobs_change_nothing(nlvc, source, tmp_path):
    assert nlvc("pack", source, tmp_path / "one", "--jobs", "1")[0] == 0
    assert nlvc("pack", source, tmp_path / "four", "--jobs", "4")[0] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


def test_what_is_there_stays_without_force(nlvc, source, tmp_path):
    out = tmp_path / "out"
    assert nlvc("pack", source, out)[0] == 0
    before = contents(out)
    (source / "sub" / "0.png").unlink()
    assert nlvc("pack", source, out) == (1, "", f"nlvc: {out} is already there; --force replaces a packed data set\n")
    assert contents(out) == before
    assert nlvc("pack", source, out, "--force")[0] == 0
    assert len(data.photos(out, "all")) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


def test_force_replaces_packed_data_sets_only(nlvc, source, tmp_path):
    save(tmp_path / "precious" / "a.png", 9, 9)
    before = contents(tmp_path)
    for target in (tmp_path / "precious", source, source / "sub" / "0.png"):
        status, text, err = nlvc("pack", source, target, "--force")
        assert (status, text) == (1, "")
        assert err == f"nlvc: {target} is there and is not a packed data set, so it stays as it is\n"
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert nlvc("pack", source, tmp_path / "empty", "--force")[0] == 0


def test_a_failed_replacement_leaves_the_former(nlvc, source, tmp_path):
    out = tmp_path / "out"
    assert nlvc("pack", source, out)[0] == 0
    before = contents(out)
    for path in (source / "sub").iterdir():
        path.write_text("no picture")
    status, _, err = nlvc("pack", source, out, "--force")
    assert status == 1 and "no readable photo in" in err
    assert contents(out) == before


@pytest.mark.parametrize("name", ["missing", "photos/sub/0.png", "empty"])
def test_a_source_that_is_none(nlvc, source, tmp_path, name):
    (tmp_path / "empty").mkdir()
    status, text, err = nlvc("pack", tmp_path / name, tmp_path / "out")
    assert (status, text, err.count("\n")) == (1, "", 1) and str(tmp_path / name) in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_full_disk(run_python, source, tmp_path):
    program = (
        "import resource, signal, sys; from nlvc import cli; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); sys.exit(cli.main(sys.argv[1:]))"
    )
    done = run_python("-c", program, "pack", source, tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("nlvc: cannot write photos-00000.array_record: ") and "too large" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_killed_in_the_middle(nlvc, tmp_path):
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.png", 700, 700, seed=number)
    before = contents(tmp_path / "photos")
    command = [sys.executable, "-m", "nlvc", "pack", tmp_path / "photos", tmp_path / "out", "--jobs", "1"]
    process = subprocess.Popen(list(map(os.fspath, command)), cwd=ROOT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while process.poll() is None and not list(tmp_path.glob(".out.*.tmp/photos-00000.array_record")):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} - {"photos"} != set()
    assert not (tmp_path / "out").exists()
    assert nlvc("pack", tmp_path / "photos", tmp_path / "out")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}
    assert contents(tmp_path / "photos") == before
    for a, b in zip(data.photos(tmp_path / "out", "all"), data.photos(tmp_path / "photos", "all"), strict=True):
        np.testing.assert_array_equal(a, b)

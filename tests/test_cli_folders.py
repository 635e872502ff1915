"""The `nlvc` command on folders: every photo is done, or named, and nothing else is touched."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlvc import cli, coding, image_codec

ROOT = Path(__file__).parents[1]


def pixels(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of photos, some of them deep in it, some hidden, and of something else."""
    root = tmp_path / "photos"
    for seed, name in enumerate(("one.png", "deep/two.PNG", "deep/er/three.bmp", "deep/er/one.png")):
        save(root / name, pixels(7, 9, 3, seed=seed))
    save(root / ".hidden.png", pixels(7, 9, 3))
    save(root / ".folder" / "photo.png", pixels(7, 9, 3))
    (root / "notes.txt").write_text("not a photo")
    return root


def contents(folder):
    """Every file below a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def decoded(path, model_file):
    return image_codec.decompress(path.read_bytes(), model=image_codec.load(model_file()))


def test_a_folder_keeps_its_tree(nlvc, photos, tmp_path, model_file):
    before = contents(photos)
    codes, back = tmp_path / "codes", tmp_path / "back"
    status, out, err = nlvc("compress", photos, codes)
    assert (status, err) == (0, "")
    assert out.endswith("4 written, 0 skipped because they are already there, 0 failed\n")
    names = {"one", "deep/two", "deep/er/three", "deep/er/one"}
    assert contents(codes).keys() == {f"{name}.nlvc" for name in names}
    assert nlvc("decompress", codes, back)[0] == 0
    assert contents(back).keys() == {f"{name}.png" for name in names}
    for name in names:
        np.testing.assert_array_equal(read(back / f"{name}.png"), decoded(codes / f"{name}.nlvc", model_file))
    assert contents(photos) == before


def test_a_folder_beside_itself(nlvc, photos):
    before = contents(photos)
    assert nlvc("compress", photos)[0] == 0
    after = contents(photos)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"one.nlvc", "deep/two.nlvc", "deep/er/three.nlvc", "deep/er/one.nlvc"}


def test_a_second_run_does_what_is_missing(nlvc, photos, tmp_path):
    codes = tmp_path / "codes"
    nlvc("compress", photos, codes)
    whole = contents(codes)
    (codes / "one.nlvc").unlink()
    (codes / "deep" / "two.nlvc").write_bytes(b"changed")
    status, out, _ = nlvc("compress", photos, codes)
    assert status == 0
    assert "1 written, 3 skipped because they are already there, 0 failed" in out
    assert contents(codes) == {**whole, "deep/two.nlvc": b"changed"}
    assert "4 written, 0 skipped" in nlvc("compress", photos, codes, "--force")[1]
    assert contents(codes) == whole


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "a.bmp", "b.png"], ["a.png.nlvc", "a.bmp.nlvc", "b.nlvc"]),
        (["a.png", "x/a.bmp"], ["a.nlvc", "x/a.nlvc"]),
        (["a.png", "a.bmp", "a.png.png"], ["a.png.nlvc", "a.bmp.nlvc", "a.png.png.nlvc"]),
    ],
)
def test_names_that_would_meet(nlvc, tmp_path, names, expected):
    for seed, name in enumerate(names):
        save(tmp_path / "in" / name, pixels(7, 9, 3, seed=seed))
    assert nlvc("compress", tmp_path / "in", tmp_path / "codes")[0] == 0
    codes = contents(tmp_path / "codes")
    assert sorted(codes) == sorted(expected)
    assert len(set(codes.values())) == len(names)
    assert nlvc("decompress", tmp_path / "codes", tmp_path / "back")[0] == 0
    assert len(contents(tmp_path / "back")) == len(names)


def test_a_bad_photo_does_not_stop_the_others(nlvc, photos, tmp_path):
    (photos / "deep" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (photos / "aaa.jpg").write_text("not a photo")
    Image.fromarray(np.zeros((7, 9), np.uint16)).save(photos / "deep.png")
    status, out, err = nlvc("compress", photos, tmp_path / "codes")
    assert status == 1
    assert sorted(line.split(": ")[1] for line in err.splitlines()) == sorted(
        str(photos / name) for name in ("aaa.jpg", "deep/broken.png", "deep.png")
    )
    assert re.search(r"deep\.png: pictures of 8 bits a sample only, got Pillow mode I;16", err)
    assert "4 written, 0 skipped because they are already there, 3 failed" in out
    assert len(contents(tmp_path / "codes")) == 4


def test_a_bad_file_does_not_stop_the_others(nlvc, photos, tmp_path):
    codes = tmp_path / "codes"
    nlvc("compress", photos, codes)
    whole = (codes / "one.nlvc").read_bytes()
    (codes / "cut.nlvc").write_bytes(whole[:-1])
    (codes / "foreign.nlvc").write_bytes(b"hello")
    (codes / "empty.nlvc").touch()
    before = contents(codes)
    status, out, err = nlvc("decompress", codes)
    assert status == 1
    assert sorted(line.split(": ")[1] for line in err.splitlines()) == [
        str(codes / f"{name}.nlvc") for name in ("cut", "empty", "foreign")
    ]
    assert "4 written, 0 skipped because they are already there, 3 failed" in out
    after = contents(codes)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 4


def test_a_link_to_nowhere_does_not_stop_the_others(nlvc, photos, tmp_path):
    (photos / "link.png").symlink_to("nowhere.png")
    status, out, err = nlvc("compress", photos, tmp_path / "codes")
    assert status == 1
    assert err.count("\n") == 1
    assert str(photos / "link.png") in err
    assert "4 written, 0 skipped because they are already there, 1 failed" in out


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory")])
def test_a_photo_too_large_for_the_memory(nlvc, photos, monkeypatch, error):
    compress = image_codec.compress

    def too_large(picture, **options):
        if np.array_equal(picture, pixels(7, 9, 3, seed=1)):
            raise error
        return compress(picture, **options)

    monkeypatch.setattr(image_codec, "compress", too_large)
    status, out, err = nlvc("compress", photos)
    assert status == 1
    assert err == f"nlvc: {photos / 'deep/two.PNG'}: {str(error) or 'MemoryError'}\n"
    assert "3 written, 0 skipped because they are already there, 1 failed" in out


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_files_at_a_time(nlvc, photos, tmp_path, monkeypatch, jobs):
    """The same files, and never more at once than were asked for."""
    assert nlvc("compress", photos, tmp_path / "codes")[0] == 0
    compress, now, most = image_codec.compress, [], []

    def spy(picture, **options):
        now.append(1)
        most.append(len(now))
        time.sleep(0.1)
        try:
            return compress(picture, **options)
        finally:
            now.pop()

    monkeypatch.setattr(image_codec, "compress", spy)
    assert nlvc("compress", photos, tmp_path / "again", f"--jobs={jobs}")[0] == 0
    assert max(most) == min(jobs, 4)
    assert contents(tmp_path / "again") == contents(tmp_path / "codes")


@pytest.mark.parametrize(("files", "cores", "memory", "expected"), [
    (1, 8, 64, 1), (100, 8, 64, 8), (100, 8, 9, 2), (100, 8, 1, 1), (3, 8, 64, 3),
])  # fmt: skip
def test_the_usual_number_of_files_at_a_time(monkeypatch, files, cores, memory, expected):
    sizes = {"SC_PAGE_SIZE": 1 << 12, "SC_PHYS_PAGES": memory << 18}
    monkeypatch.setattr(os, "sysconf", sizes.get)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert cli.jobs(files) == expected


def test_json_of_a_folder(nlvc, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"broken")
    codes = tmp_path / "codes"
    codes.mkdir()
    (codes / "one.nlvc").write_bytes(b"precious")
    status, out, err = nlvc("compress", photos, codes, "--json")
    assert status == 1
    assert err == f"nlvc: {photos / 'broken.png'}: not a picture in a format that Pillow knows\n"
    *each, all_ = map(json.loads, out.splitlines())
    outcomes = {str(Path(line["file"]).relative_to(photos)): line["outcome"] for line in each}
    written = ["deep/two.PNG", "deep/er/three.bmp", "deep/er/one.png"]
    assert outcomes == {"broken.png": "failed", "one.png": "skipped", **dict.fromkeys(written, "written")}
    for line in each:
        assert line["output"] == str(codes / Path(line["file"]).relative_to(photos).with_suffix(".nlvc"))
        if line["outcome"] == "written":
            assert line["bytes"] == line["size"] == Path(line["output"]).stat().st_size
    assert all_ == {
        "written": 3, "skipped": 1, "failed": 1,
        "bytes_in": sum((photos / name).stat().st_size for name in written),
        "bytes_out": sum(line.get("size", 0) for line in each),
    }  # fmt: skip


def test_ctrl_c(nlvc, tmp_path, monkeypatch):
    """What has begun is ended, nothing else is begun, and the next run does the rest."""
    for number in range(20):
        save(tmp_path / "photos" / f"{number:02}.png", pixels(7, 9, 3, seed=number))
    begun = []

    def stop(picture, **_):
        begun.append(picture)
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return b"whole"

    with monkeypatch.context() as patched:
        patched.setattr(image_codec, "compress", stop)
        status, _, err = nlvc("compress", tmp_path / "photos", tmp_path / "codes", "--jobs=2")
    assert (status, err) == (130, "nlvc: stopped; what is written is whole\n")
    time.sleep(0.5)
    assert 3 <= len(begun) <= 6
    done = contents(tmp_path / "codes")
    assert len(done) == len(begun) and set(done.values()) == {b"whole"}
    status, out, _ = nlvc("compress", tmp_path / "photos", tmp_path / "codes")
    assert status == 0
    assert f"{20 - len(done)} written, {len(done)} skipped" in out


def test_ctrl_c_in_the_middle_of_a_file(nlvc, photos, monkeypatch):
    before = contents(photos)
    done = []

    def stop(picture, **_):
        if done:
            raise KeyboardInterrupt
        done.append(picture)
        return b"first"

    monkeypatch.setattr(image_codec, "compress", stop)
    status, _, err = nlvc("compress", photos, "--jobs=1")
    assert (status, err) == (130, "nlvc: stopped; what is written is whole\n")
    assert contents(photos) == {**before, "deep/er/one.nlvc": b"first"}


@pytest.fixture
def killed(tmp_path, model_file):
    """killed(seconds) starts the compression of 40 photos in another process and ends it by kill -9, that long after
    its first new file. Returns whether it had already ended by itself; every file that is there must be whole."""
    for number in range(40):
        save(tmp_path / "photos" / f"{number:02}.png", pixels(40, 50, 3, seed=number))
    codes = tmp_path / "codes"
    command = ["-m", "nlvc", "compress", tmp_path / "photos", codes, "--model", model_file(), "--jobs=2"]

    def run(seconds):
        before = len(list(codes.glob("*.nlvc")))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, *map(os.fspath, command)], env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            while process.poll() is None and len(list(codes.glob("*.nlvc"))) == before:
                time.sleep(0.002)
            time.sleep(seconds)
        finally:
            process.kill()
        print(f"kill -9 after {seconds} seconds: status {process.wait()}")
        assert process.returncode in (0, -signal.SIGKILL)
        for path in codes.glob("*.nlvc"):
            coding.unpack(path.read_bytes()).check()
        return process.returncode == 0

    return run


def check_all_done(nlvc, tmp_path):
    """The rest is done, nothing half is left, and all of it is what an uninterrupted run gives."""
    status, _, err = nlvc("compress", tmp_path / "photos", tmp_path / "codes")
    assert (status, err) == (0, "")
    assert nlvc("compress", tmp_path / "photos", tmp_path / "whole")[0] == 0
    assert contents(tmp_path / "codes") == contents(tmp_path / "whole")


def test_a_killed_run_is_completed_by_the_next(nlvc, killed, tmp_path):
    assert not killed(random.uniform(0, 0.05))
    assert 0 < len(list((tmp_path / "codes").glob("*.nlvc"))) < 40
    check_all_done(nlvc, tmp_path)


def test_half_a_file_of_a_killed_run_is_gone_after_the_next(nlvc, photos, tmp_path, run_python):
    """Whether that run writes the same file again or skips it."""
    codes = tmp_path / "codes"
    assert nlvc("compress", photos / "deep", codes)[0] == 0
    whole = contents(codes)
    for name in ("two.nlvc", "er/one.nlvc"):
        program = (
            "import os, signal, sys; from pathlib import Path; from nlvc.files import write_whole;"
            "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL);"
            "write_whole(Path(sys.argv[1]), b'half')"
        )
        assert run_python("-c", program, codes / name).returncode == -signal.SIGKILL
    (codes / "two.nlvc").unlink()
    assert len(contents(codes)) == len(whole) + 1
    assert nlvc("compress", photos / "deep", codes)[0] == 0
    assert contents(codes) == whole


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_killed_again_and_again(nlvc, killed, tmp_path, attempt):
    while not killed(random.uniform(0, 0.5)):
        pass
    check_all_done(nlvc, tmp_path)


def test_a_folder_cannot_become_a_file(nlvc, photos, tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    status, _, err = nlvc("compress", photos, tmp_path / "file")
    assert (status, err) == (1, f"nlvc: {tmp_path / 'file'}: a file, but a folder of results needs a folder\n")
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_info_of_folders_and_bad_files(nlvc, photos, tmp_path):
    photo = photos / "one.png"
    nlvc("compress", photos, tmp_path / "codes")
    (tmp_path / "codes" / "bad.nlvc").write_bytes(b"NLVC\x01 damaged")
    status, out, err = nlvc("info", tmp_path / "codes", photo, tmp_path / "codes" / "one.nlvc")
    assert status == 1
    assert len(re.findall(r"^/.*: 9 x 7 RGB, .* 1 tile, ", out, re.MULTILINE)) == 5
    bad, foreign = err.splitlines()
    assert bad.startswith(f"nlvc: {tmp_path / 'codes' / 'bad.nlvc'}: ")
    assert foreign == f"nlvc: {photo}: not an .nlvc file: it does not begin with NLVC"


def test_as_a_program(run_python, photos, tmp_path, model_file):
    (photos / "broken.png").write_bytes(b"broken")
    shutil.copy(model_file(), tmp_path / "model.safetensors")
    done = run_python("-m", "nlvc", "compress", photos, tmp_path / "codes", "--model", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"nlvc: {photos / 'broken.png'}: not a picture in a format that Pillow knows\n"
    assert done.stdout.splitlines()[-1] == "4 written, 0 skipped because they are already there, 1 failed"
    codes = contents(tmp_path / "codes")
    assert len(codes) == 4
    expected = image_codec.compress(read(photos / "one.png"), model=image_codec.load(model_file()))
    assert codes["one.nlvc"] == expected

"""The `nlvc` command on folders: every photo is done, or named, and nothing else is touched."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nlvc import image_codec


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
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        str(photos / name) for name in ("aaa.jpg", "deep/broken.png", "deep.png")
    ]
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
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        str(codes / f"{name}.nlvc") for name in ("cut", "empty", "foreign")
    ]
    assert "4 written, 0 skipped because they are already there, 3 failed" in out
    after = contents(codes)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 4


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory")])
def test_a_photo_too_large_for_the_memory(nlvc, photos, monkeypatch, error):
    compress = image_codec.compress

    def too_large(picture, *, model):
        if np.array_equal(picture, pixels(7, 9, 3, seed=1)):
            raise error
        return compress(picture, model=model)

    monkeypatch.setattr(image_codec, "compress", too_large)
    status, out, err = nlvc("compress", photos)
    assert status == 1
    assert err == f"nlvc: {photos / 'deep/two.PNG'}: {str(error) or 'MemoryError'}\n"
    assert "3 written, 0 skipped because they are already there, 1 failed" in out


def test_ctrl_c(nlvc, photos, monkeypatch):
    before = contents(photos)
    done = []

    def stop(picture, *, model):
        if done:
            raise KeyboardInterrupt
        done.append(picture)
        return b"first"

    monkeypatch.setattr(image_codec, "compress", stop)
    status, _, err = nlvc("compress", photos)
    assert (status, err) == (130, "nlvc: stopped; what is written is whole\n")
    assert contents(photos) == {**before, "deep/er/one.nlvc": b"first"}


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
    assert len(re.findall(r"^/.* 9 x 7 RGB, ", out, re.MULTILINE)) == 5
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

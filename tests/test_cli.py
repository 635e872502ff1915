"""The `nlvc` command, on files and folders, at its best and when everything goes wrong."""

import errno
import functools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlvc import __version__, cli, coding, image_codec


@pytest.fixture(autouse=True, scope="module")
def one_load():
    """The command loads a model each time; here its programs are compiled once for all of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_codec, "load", functools.cache(image_codec.load))
        yield


@pytest.fixture
def nlvc(capsys, model_file):
    """nlvc(arguments...) -> (exit status, stdout, stderr); compress and decompress get a model unless one is named."""

    def run(command, *arguments):
        if command != "info" and "--model" not in arguments:
            arguments += ("--model", model_file())
        capsys.readouterr()
        status = cli.main([command, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert all(line.startswith("nlvc: ") for line in err.splitlines()), err
        return status, out, err

    return run


def pixels(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", pixels(7, 9, 3))


@pytest.fixture
def photos(tmp_path):
    """A folder of photos, of things that are not photos, and of one that is broken."""
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


# One file.


def test_there_and_back(nlvc, photo, model_file):
    before = photo.read_bytes()
    status, out, err = nlvc("compress", photo)
    code = photo.with_suffix(".nlvc")
    assert (status, err) == (0, "")
    size = code.stat().st_size
    assert out == f"{photo} -> {code}: {size} bytes, {8 * size / 63:.3f} bpp\n"
    assert code.read_bytes() == image_codec.compress(read(photo), model=image_codec.load(model_file()))
    photo.rename(photo.with_name("original.png"))
    assert nlvc("decompress", code) == (0, f"{code} -> {photo}: 9 x 7\n", "")
    np.testing.assert_array_equal(read(photo), decoded(code, model_file))
    assert contents(photo.parent).keys() == {"original.png", "photo.nlvc", "photo.png"}
    assert photo.with_name("original.png").read_bytes() == before


def test_out_is_a_file(nlvc, photo, tmp_path):
    out = tmp_path / "new" / "folder" / "name.xyz"
    assert nlvc("compress", photo, out)[0] == 0
    assert coding.read_header(out.read_bytes()).width == 9


@pytest.mark.parametrize("there", [True, False])
def test_out_is_a_folder(nlvc, photo, tmp_path, there):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    assert nlvc("compress", photo, f"{folder}/")[0] == 0
    assert nlvc("decompress", folder / "photo.nlvc", f"{folder}/")[0] == 0
    assert contents(folder).keys() == {"photo.nlvc", "photo.png"}
    if there:
        assert nlvc("compress", photo, folder, "--force")[0] == 0
        assert contents(folder).keys() == {"photo.nlvc", "photo.png"}


@pytest.fixture
def code(nlvc, photo):
    assert nlvc("compress", photo)[0] == 0
    photo.unlink()
    return photo.with_suffix(".nlvc")


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.tiff", "a.ppm", "a", "a.b.png"])
def test_formats_without_loss(nlvc, code, tmp_path, model_file, name):
    assert nlvc("decompress", code, tmp_path / name)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / name), decoded(code, model_file))


def test_formats_with_loss(nlvc, code, tmp_path):
    assert nlvc("decompress", code, tmp_path / "a.jpg")[0] == 0
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (9, 7))


@pytest.mark.parametrize("name", ["a.xyz", "a.txt", "a.nlvc"])
def test_a_suffix_that_is_no_picture(nlvc, code, tmp_path, name):
    status, out, err = nlvc("decompress", code, tmp_path / name)
    assert (status, out) == (1, "")
    assert f"nlvc: .{name[2:]}: no picture format" in err
    assert contents(tmp_path).keys() == {"photo.nlvc"}


@pytest.mark.parametrize(("shape", "mode"), [((7, 9), "L"), ((7, 9, 4), "RGBA")])
def test_grey_and_transparent_photos(nlvc, tmp_path, shape, mode):
    photo = save(tmp_path / "photo.png", pixels(*shape))
    assert nlvc("compress", photo)[0] == 0
    assert nlvc("decompress", tmp_path / "photo.nlvc", tmp_path / "back.png")[0] == 0
    with Image.open(tmp_path / "back.png") as image:
        assert image.mode == mode
    if mode == "RGBA":
        np.testing.assert_array_equal(read(tmp_path / "back.png")[:, :, 3], read(photo)[:, :, 3])
        status, _, err = nlvc("decompress", tmp_path / "photo.nlvc", tmp_path / "back.jpg")
        assert status == 1
        assert "cannot write mode RGBA as JPEG" in err
        assert contents(tmp_path).keys() == {"photo.png", "photo.nlvc", "back.png"}


def test_the_orientation_is_applied(nlvc, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photo.jpg", pixels(7, 9, 3), exif=exif)
    assert nlvc("compress", tmp_path / "photo.jpg")[0] == 0
    header = coding.read_header((tmp_path / "photo.nlvc").read_bytes())
    assert (header.width, header.height) == (7, 9)


# Nothing is lost, nothing is left.


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_an_output_that_is_there(nlvc, photo, tmp_path, command):
    source = photo
    if command == "decompress":
        nlvc("compress", photo)
        source = photo.with_suffix(".nlvc")
    out = tmp_path / "out.png"
    out.write_bytes(b"precious")
    status, stdout, err = nlvc(command, source, out)
    assert (status, stdout) == (1, "")
    assert f"{out} is already there; --force writes over it" in err
    assert out.read_bytes() == b"precious"
    assert nlvc(command, source, out, "--force")[0] == 0
    assert out.read_bytes() != b"precious"


@pytest.mark.parametrize("link", [False, True])
def test_a_source_is_never_its_own_output(nlvc, photo, tmp_path, link):
    """--force is no leave to destroy the original."""
    before, out = photo.read_bytes(), photo
    if link:
        out = tmp_path / "link.png"
        out.symlink_to(photo)
    status, _, err = nlvc("compress", photo, out, "--force")
    assert status == 1
    assert f"{photo}: its output would replace it" in err
    misnamed = shutil.copy(photo, tmp_path / "photo.nlvc")
    assert nlvc("compress", misnamed, "--force")[0] == 1
    assert photo.read_bytes() == before == Path(misnamed).read_bytes()


def test_a_full_disk(nlvc, photo, tmp_path, monkeypatch):
    (tmp_path / "photo.nlvc").write_bytes(b"precious")
    before = contents(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = nlvc("compress", photo, "--force")
    assert (status, out) == (1, "")
    assert f"nlvc: {photo}: [Errno 28] No space left on device\n" == err
    assert contents(tmp_path) == before


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


# Folders.


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


def test_files_of_another_model(nlvc, code, model_file, tmp_path):
    before = contents(tmp_path)
    status, out, err = nlvc("decompress", code, "--model", model_file(weights_seed=1))
    assert (status, out) == (1, "")
    assert err.startswith(f"nlvc: {code}: this file needs the model with fingerprint ")
    assert contents(tmp_path) == before


# Wrong arguments.


@pytest.mark.parametrize("command", ["compress", "decompress", "info"])
def test_a_missing_input(nlvc, tmp_path, command):
    status, out, err = nlvc(command, tmp_path / "missing.nlvc")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert str(tmp_path / "missing.nlvc") in err
    assert not contents(tmp_path)


@pytest.mark.parametrize("command", ["compress", "decompress", "info"])
def test_a_folder_without_files(nlvc, tmp_path, command):
    (tmp_path / "notes.txt").touch()
    status, out, err = nlvc(command, tmp_path)
    assert (status, out) == (1, "")
    assert f"nlvc: {tmp_path}: no files with suffix " in err


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_missing_model(nlvc, photo, tmp_path, command):
    status, _, err = nlvc(command, photo, "--model", tmp_path / "missing")
    assert (status, err) == (1, f"nlvc: {tmp_path / 'missing'}: there is no such model file\n")


def test_a_folder_cannot_become_a_file(nlvc, photos, tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    status, _, err = nlvc("compress", photos, tmp_path / "file")
    assert (status, err) == (1, f"nlvc: {tmp_path / 'file'}: a file, but a folder of results needs a folder\n")
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize("arguments", [[], ["compress"], ["compress", "a.png"], ["info"], ["explode"], ["info", "--x"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: nlvc" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nlvc {__version__}\n"


# info.


def test_info(nlvc, tmp_path):
    save(tmp_path / "photo.png", pixels(7, 9, 4))
    nlvc("compress", tmp_path / "photo.png")
    path = tmp_path / "photo.nlvc"
    data = path.read_bytes()
    header = coding.read_header(data)
    status, out, err = nlvc("info", path)
    assert (status, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == (
        f"{path}: 9 x 7 RGBA, {len(data)} bytes, {8 * len(data) / 63:.4f} bpp, model {header.fingerprint}, format 1"
    )
    assert [line.split()[0] for line in lines] == ["z_1", "z_2", "alpha", "header"]
    sizes = [int(line.split()[1]) for line in lines]
    assert sizes[:3] == [*header.level_bytes, header.alpha_bytes]
    assert sum(sizes) == len(data)
    rates = [float(line.split()[3]) for line in lines]
    assert rates == pytest.approx([8 * size / 63 for size in sizes], abs=1e-4)
    shares = [float(line.split()[5].rstrip("%")) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_info_of_folders_and_bad_files(nlvc, photos, photo, tmp_path):
    nlvc("compress", photos, tmp_path / "codes")
    (tmp_path / "codes" / "bad.nlvc").write_bytes(b"NLVC\x01 damaged")
    status, out, err = nlvc("info", tmp_path / "codes", photo, tmp_path / "codes" / "one.nlvc")
    assert status == 1
    assert len(re.findall(r"^/.* 9 x 7 RGB, ", out, re.MULTILINE)) == 5
    bad, foreign = err.splitlines()
    assert bad.startswith(f"nlvc: {tmp_path / 'codes' / 'bad.nlvc'}: ")
    assert foreign == f"nlvc: {photo}: not an .nlvc file: it does not begin with NLVC"


# The real thing.


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

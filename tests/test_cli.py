"""The `nlvc` command on single files, at its best and when everything goes wrong; folders: test_cli_folders.py."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlvc import __version__, cli, coding, image_codec


def pixels(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", pixels(7, 9, 3))


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

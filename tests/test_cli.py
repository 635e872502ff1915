"""The `nlvc` command on single files, at its best and when everything goes wrong; folders: test_cli_folders.py."""

import errno
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from nlvc import __version__, cli, coding, data, image_codec, train
from nlvc.config import tiny
from nlvc.image_codec.coder import encode
from nlvc.image_codec.tiles import Grid
from nlvc.models.weights import load_model
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.loop import abstract_state


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


# What a picture holds beside its pixels.


def exif():
    """Exif that turns the picture by a quarter."""
    block = Image.Exif()
    block[0x0112] = 6
    block[0x010F] = "a camera"
    return block.tobytes()


BLOCKS = {"exif": exif(), "icc_profile": b"profile " * 20, "xmp": "<x:xmpmeta>é</x:xmpmeta>".encode()}


def blocks(path):
    """What Pillow finds of them in a picture file."""
    with Image.open(path) as image:
        image.load()
        found = {name: image.info.get(name) for name in ("exif", "icc_profile", "xmp")}
        return {name: block for name, block in found.items() if block}, image.size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_metadata_is_carried_along(nlvc, tmp_path, suffix):
    """The pixels stay as they are stored, so the orientation must, too."""
    photo = save(tmp_path / "photo.jpg", pixels(7, 9, 3), **BLOCKS)
    before, size = blocks(photo)
    assert before.keys() == BLOCKS.keys()
    assert nlvc("compress", photo)[0] == 0
    carried = image_codec.metadata_of((tmp_path / "photo.nlvc").read_bytes())
    assert carried == dict(zip(["eXIF", "iCCP", "xMPP"], BLOCKS.values(), strict=True))
    assert nlvc("decompress", tmp_path / "photo.nlvc", tmp_path / f"back{suffix}")[0] == 0
    after, back_size = blocks(tmp_path / f"back{suffix}")
    assert back_size == size == (9, 7)
    assert {name: block.removeprefix(b"Exif\0\0") for name, block in after.items()} == {
        name: block.removeprefix(b"Exif\0\0") for name, block in before.items()
    }


def test_metadata_can_be_left_out(nlvc, tmp_path):
    photo = save(tmp_path / "photo.jpg", pixels(7, 9, 3), **BLOCKS)
    assert nlvc("compress", photo, tmp_path / "with.nlvc")[0] == 0
    assert nlvc("compress", photo, tmp_path / "without.nlvc", "--strip")[0] == 0
    whole, stripped = ((tmp_path / f"{name}.nlvc").read_bytes() for name in ("with", "without"))
    assert image_codec.metadata_of(stripped) == {}
    assert len(whole) - len(stripped) > sum(map(len, BLOCKS.values()))
    assert coding.unpack(whole).sizes == coding.unpack(stripped).sizes
    assert nlvc("decompress", tmp_path / "with.nlvc", tmp_path / "back.png", "--strip")[0] == 0
    assert blocks(tmp_path / "back.png")[0] == {}


# Parts, looks and remains of a picture.


@pytest.fixture(scope="module")
def wide(model_file, load_once):
    """(a file of 3 x 3 tiles, its pixels)."""
    model = load_once(model_file())
    image = np.kron(pixels(10, 15, 3), np.ones((13, 11, 1), np.uint8))
    streams, _ = encode(model, grid := Grid(model.config, 130, 165, 64), image)
    assert grid.tiles == (3, 3)
    header = coding.Header(0, 165, 130, "RGB", model.fingerprint, coding.LANES, model.config.L, 64)
    data = coding.pack(header, streams, {"iCCP": b"profile"})
    return data, image_codec.decompress(data, model=model)


@pytest.mark.parametrize("box", ["0,0,165,130", "0,0,1,1", "164,129,1,1", "60,60,10,10", "3,70,162,20"])
def test_a_region(nlvc, wide, tmp_path, box):
    (tmp_path / "wide.nlvc").write_bytes(wide[0])
    x, y, width, height = map(int, box.split(","))
    status, out, err = nlvc("decompress", tmp_path / "wide.nlvc", "--region", box)
    assert (status, err) == (0, "")
    assert out.endswith(f": {width} x {height}\n")
    np.testing.assert_array_equal(read(tmp_path / "wide.png"), wide[1][y : y + height, x : x + width])


@pytest.mark.parametrize("box", ["0,0,166,130", "0,0,165,131", "165,0,1,1", "-1,0,5,5", "0,0,0,5", "5,5,5,-5"])
def test_a_region_that_is_not_in_the_picture(nlvc, wide, tmp_path, box):
    (tmp_path / "wide.nlvc").write_bytes(wide[0])
    status, out, err = nlvc("decompress", tmp_path / "wide.nlvc", f"--region={box}")
    assert (status, out) == (1, "")
    assert f"the region {box} is not inside the picture of 165x130" in err
    assert contents(tmp_path).keys() == {"wide.nlvc"}


def test_a_preview_is_an_eighth_as_wide_and_high(nlvc, wide, tmp_path):
    (tmp_path / "wide.nlvc").write_bytes(wide[0])
    assert nlvc("decompress", tmp_path / "wide.nlvc", tmp_path / "whole.png", "--preview")[0] == 0
    preview = read(tmp_path / "whole.png")
    assert preview.shape == (17, 21, 3)  # of 130 x 165
    box = ["--region", "30,50,60,70"]  # the pixels 3 to 11 across and 6 to 14 down show a part of it
    assert nlvc("decompress", tmp_path / "wide.nlvc", tmp_path / "part.png", "--preview", *box)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "part.png"), preview[6:15, 3:12])


def test_salvage(nlvc, wide, tmp_path):
    data = bytearray(wide[0])
    data[-1] ^= 1  # z_1 of the last tile, lower right
    path = tmp_path / "wide.nlvc"
    path.write_bytes(data)
    status, _, err = nlvc("decompress", path)
    assert status == 1
    assert "z_1 of tile 8 does not match its checksum" in err
    status, out, err = nlvc("decompress", path, "--salvage")
    assert status == 0
    assert err == f"nlvc: {path}: lost: z_1 of tile 8\n"
    assert out == f"{path} -> {tmp_path / 'wide.png'}: 165 x 130\n"
    back = read(tmp_path / "wide.png")
    np.testing.assert_array_equal(back[:48], wide[1][:48])  # the synthesis looks five positions of z_1 around
    assert np.any(back[128:, 128:] != wide[1][128:, 128:])


def test_salvage_of_what_is_whole(nlvc, wide, tmp_path):
    (tmp_path / "wide.nlvc").write_bytes(wide[0])
    status, _, err = nlvc("decompress", tmp_path / "wide.nlvc", "--salvage")
    assert (status, err) == (0, "")
    np.testing.assert_array_equal(read(tmp_path / "wide.png"), wide[1])


def test_salvage_of_nothing(nlvc, wide, tmp_path):
    (tmp_path / "wide.nlvc").write_bytes(wide[0][:30])
    status, out, err = nlvc("decompress", tmp_path / "wide.nlvc", "--salvage")
    assert (status, out) == (1, "")
    assert "truncated" in err
    assert contents(tmp_path).keys() == {"wide.nlvc"}


# Other flags.


def test_verify(nlvc, photo, monkeypatch):
    assert nlvc("compress", photo)[0] == 0
    plain = photo.with_suffix(".nlvc").read_bytes()
    calls, decompress = [], image_codec.decompress

    def spy(*arguments, **options):
        calls.append(decompress(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(image_codec, "decompress", spy)
    assert nlvc("compress", photo, "--force")[0] == 0
    assert calls == []
    assert nlvc("compress", photo, "--force", "--verify")[0] == 0
    assert len(calls) == 1
    assert photo.with_suffix(".nlvc").read_bytes() == plain


def test_effort(nlvc, photo):
    assert nlvc("compress", photo)[0] == 0
    plain = photo.with_suffix(".nlvc").read_bytes()
    assert nlvc("compress", photo, "--force", "--effort=1", "--verify")[0] == 0
    assert photo.with_suffix(".nlvc").read_bytes() != plain


def test_verify_writes_nothing_that_is_wrong(nlvc, photo, monkeypatch):
    monkeypatch.setattr(image_codec, "decompress", lambda *_, **__: pixels(7, 9, 3, seed=1))
    status, out, err = nlvc("compress", photo, "--verify")
    assert (status, out) == (1, "")
    assert "does not decode to what was encoded" in err
    assert contents(photo.parent).keys() == {"photo.png"}


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_pictures_of_too_many_pixels(nlvc, photo, command):
    source = photo
    if command == "decompress":
        nlvc("compress", photo)
        photo.unlink()
        source = photo.with_suffix(".nlvc")
    before = contents(photo.parent)
    status, out, err = nlvc(command, source, "--max-pixels=62")
    assert (status, out) == (1, "")
    assert "62" in err or "megapixels" in err
    assert contents(photo.parent) == before
    assert nlvc(command, source, "--max-pixels=63")[0] == 0


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def test_json(nlvc, photo):
    code = photo.with_suffix(".nlvc")
    status, out, err = nlvc("compress", photo, "--json")
    assert (status, err) == (0, "")
    size, read_ = code.stat().st_size, photo.stat().st_size
    counts = {"written": 1, "skipped": 0, "failed": 0}
    picture = {"width": 9, "height": 7}
    facts = {**picture, "bytes": size, "bpp": 8 * size / 63, "size": size}
    assert objects(out) == [
        {"file": str(photo), "output": str(code), "outcome": "written", **facts},
        {**counts, "bytes_in": read_, "bytes_out": size},
    ]
    photo.unlink()
    status, out, err = nlvc("decompress", code, "--json")
    assert (status, err) == (0, "")
    back = photo.stat().st_size
    assert objects(out) == [
        {"file": str(code), "output": str(photo), "outcome": "written", **picture, "lost": [], "size": back},
        {**counts, "bytes_in": size, "bytes_out": back},
    ]


def test_json_of_a_failure(nlvc, photo):
    photo.write_bytes(b"not a photo")
    status, out, err = nlvc("compress", photo, "--json")
    assert status == 1
    assert err.startswith(f"nlvc: {photo}: not a picture")
    one, all_ = objects(out)
    assert one["outcome"] == "failed" and one["error"] in err
    assert all_ == {"written": 0, "skipped": 0, "failed": 1, "bytes_in": 0, "bytes_out": 0}


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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compress"],
        ["info"],
        ["explode"],
        ["info", "--x"],
        ["freeze", "run"],
        ["compress", "a.png", "--model=m", "--jobs=0"],
        ["compress", "a.png", "--model=m", "--max-pixels=-1"],
        ["compress", "a.png", "--model=m", "--salvage"],
        ["compress", "a.png", "--model=m", "--effort=-1"],
        ["compress", "a.png", "--model=m", "--effort=much"],
        ["decompress", "a.nlvc", "--model=m", "--verify"],
        ["decompress", "a.nlvc", "--model=m", "--region=1,2,3"],
        ["decompress", "a.nlvc", "--model=m", "--region=1,2,3,x"],
    ],
)
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
    save(tmp_path / "photo.png", pixels(7, 9, 4), icc_profile=b"profile")
    nlvc("compress", tmp_path / "photo.png")
    path = tmp_path / "photo.nlvc"
    data = path.read_bytes()
    file = coding.unpack(data)
    status, out, err = nlvc("info", path)
    assert (status, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == (
        f"{path}: 9 x 7 RGBA, {len(data)} bytes, {8 * len(data) / 63:.4f} bpp, 1 tile, "
        f"model {file.header.fingerprint}, format 1.0"
    )
    assert [line.split()[0] for line in lines] == ["z_1", "z_2", "iCCP", "ALPH", "header"]
    sizes = [int(line.split()[1]) for line in lines]
    assert sizes[:4] == [file.sizes[0][0], file.sizes[1][0], 7, len(file.chunks["ALPH"])]
    assert sum(sizes) == len(data)
    rates = [float(line.split()[3]) for line in lines]
    assert rates == pytest.approx([8 * size / 63 for size in sizes], abs=1e-4)
    shares = [float(line.split()[5].rstrip("%")) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    status, out, err = nlvc("info", path, "--json")
    [facts] = objects(out)
    assert facts == {
        **file.header._asdict(), "file": str(path), "bytes": len(data),
        "sizes": dict(zip(["z_1", "z_2", "iCCP", "ALPH", "header"], sizes, strict=True)),
    }  # fmt: skip


def test_info_of_many_tiles(nlvc, wide, tmp_path):
    (tmp_path / "wide.nlvc").write_bytes(wide[0])
    out = nlvc("info", tmp_path / "wide.nlvc")[1]
    assert ", 9 tiles, " in out
    sizes = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[1:]}
    assert [sizes["z_1"], sizes["z_2"]] == [sum(level) for level in coding.unpack(wide[0]).sizes]


# freeze.


def test_freeze(nlvc, tmp_path):
    """The newest checkpoint of a run, with crops of its own photos: the model that the run itself would end with."""
    for name in "abc":
        save(tmp_path / "photos" / f"{name}.png", pixels(300, 300, 3, seed=ord(name)))
    photos = str(tmp_path / "photos")
    config = tiny(L=1, channels=3, filters=2, latent_filters=2, transform="plain", linear_path=False, data=photos)
    run = tmp_path / "run"
    train.claim(run, config)
    status, out, err = nlvc("freeze", run, tmp_path / "model.safetensors")
    assert (status, out, err) == (1, "", f"nlvc: {run}: this run has no checkpoint yet\n")
    rng = np.random.default_rng(0)
    states = [jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), abstract_state(config))
              for _ in range(2)]  # fmt: skip
    states = [state.replace(step=np.int32(step)) for step, state in enumerate(states)]
    for state in states:
        with Checkpoints(run) as checkpoints:
            checkpoints.save(state, 1.0)
    status, out, err = nlvc("freeze", run, tmp_path / "model.safetensors")
    assert (status, err) == (0, "")
    found, arrays, fingerprint = load_model(tmp_path / "model.safetensors")
    assert out == f"{tmp_path / 'model.safetensors'}: fingerprint {fingerprint}\n"
    assert found == config
    train.save_frozen(tmp_path / "again.safetensors", config, states[-1], data.photos(photos, "train"))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    model = image_codec.Model(found, arrays, fingerprint)
    code = image_codec.compress(pixels(20, 30, 3), model=model, verify=True)
    assert image_codec.decompress(code, model=model).shape == (20, 30, 3)


def test_freeze_of_what_is_no_run(nlvc, tmp_path):
    status, out, err = nlvc("freeze", tmp_path, tmp_path / "model.safetensors")
    assert (status, out) == (1, "")
    assert f"{tmp_path}: not the workdir of a run" in err
    (tmp_path / "config.json").write_text("{")
    status, out, err = nlvc("freeze", tmp_path, tmp_path / "model.safetensors")
    assert (status, out) == (1, "")
    assert "not JSON" in err
    assert contents(tmp_path).keys() == {"config.json"}

"""The comparison with JPEG and WebP: what it interpolates, and the whole of it on two small photos."""

import csv
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "experiments" / "against_file_codecs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("against_file_codecs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / 16
    waves = (np.sin(rng.normal() * rows + rng.normal() * columns) for _ in range(8))
    waves = sum(wave[..., None] * rng.normal(0, 30, 3) for wave in waves)
    return np.clip(128 + waves + rng.normal(0, 9, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_the_neighbouring_qualities_enclose_the_size(script, name):
    codec = script.FileCodec(name, photo(48, 64))
    for size in (800, 1111, 1400):
        result = codec.at_size(size)
        below, above = math.floor(result.quality), math.ceil(result.quality)
        assert len(codec.file(below)) <= size <= len(codec.file(above)) and above - below <= 1
        assert codec.measured(below).psnr <= result.psnr <= codec.measured(above).psnr
        assert result.size == size and not result.clamped


@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_beyond_the_ends_the_nearest_file_counts_as_it_is(script, name):
    codec = script.FileCodec(name, photo(48, 64))
    for size, quality in ((1, codec.lowest), (10**6, codec.highest)):
        assert codec.at_size(size) == codec.measured(quality)._replace(clamped=True)
    data = codec.file(codec.highest)
    with Image.open(io.BytesIO(data)) as image:
        error = np.asarray(image.convert("RGB"), float) - photo(48, 64)
    result = codec.measured(codec.highest)
    assert result.size == len(data)
    assert result.psnr == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)))


def test_published_curves_pass_through_their_points_and_end_with_them(script, tmp_path):
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({"codec": {"bpp": [0.5, 0.1, 0.25], "psnr": [33, 28, 31]}}))
    curve = script.read_curves(path, ["codec"])["codec"]
    for bpp, psnr in ((0.1, 28), (0.25, 31), (0.5, 33)):
        assert script.published_psnr(curve, bpp) == pytest.approx(psnr)
    assert 31 < script.published_psnr(curve, 0.4) < 33
    assert math.isnan(script.published_psnr(curve, 0.09)) and math.isnan(script.published_psnr(curve, 0.51))
    with pytest.raises(ValueError, match=r"no curve 'other' in .*; it has codec"):
        script.read_curves(path, ["other"])


def test_the_whole_comparison(script, model_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.png", (40, 56)), ("b.png", (64, 48))):
        Image.fromarray(photo(*size)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    curves, out = tmp_path / "curves.json", tmp_path / "out.csv"
    curves.write_text(json.dumps({"far": {"bpp": [1e-4, 2e-4], "psnr": [1, 2]}}))
    flags = ["--photos", folder, "--csv", out, "--published", curves, "--curves", "far"]
    monkeypatch.setattr("sys.argv", ["against_file_codecs.py", *map(str, [model_file(), *flags])])
    script.main()
    printed = capsys.readouterr()
    assert "1 unreadable pictures skipped" in printed.err and "broken.png" in printed.err
    assert printed.out.startswith(f"2 photos of {folder}")
    assert "the curve far covers 0.0001 to 0.0002 bpp only" in printed.out

    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["photo"], row["codec"]) for row in rows] == [
        (name, codec) for codec in ("nlvc", "JPEG", "WebP") for name in ("a.png", "b.png")
    ]
    for row in rows:
        pixels = int(row["width"]) * int(row["height"])
        assert float(row["bpp"]) == pytest.approx(8 * float(row["bytes"]) / pixels, abs=1e-6)
        if row["codec"] == "nlvc":
            assert 0 < int(row["z_1_bytes"]) < int(row["bytes"])
    first = next(line for line in printed.out.splitlines() if line.startswith(str(model_file())))
    own = [float(row["bpp"]) for row in rows if row["codec"] == "nlvc"]
    assert float(first.split()[1]) == pytest.approx(np.mean(own), abs=1e-4)


def test_an_empty_folder_is_named(script, model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", str(model_file()), "--photos", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    assert "no photo in" in capsys.readouterr().err

"""Codecs behind one record: what is measured of a file, and models as codecs."""

import math
import shutil

import numpy as np
import pytest

from nlvc.evaluation import bits_per_pixel, ms_ssim, psnr
from nlvc.evaluation.codecs import measure, model_codec
from nlvc.evaluation.trip import Codec, CodecFailure
from nlvc.image_codec import compress, decompress, load

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)


def raw(decode=None, **fields):
    """Pixels as they are, without the lowest bits, of which the setting says how many."""
    return Codec(
        "raw",
        (4, 2),
        lambda photo, setting: (photo >> int(setting) << int(setting)).tobytes(),
        decode or (lambda data: np.frombuffer(data, np.uint8).reshape(PHOTO.shape)),
        "as it is",
        **fields,
    )


def test_a_point_is_of_a_file_that_was_decoded_again():
    found = measure(raw(levels=lambda data: (len(data) - 7, 7)), PHOTO, 4, photo_set="noise", name="a.png")
    assert found[:6] == ("noise", "a.png", 64, 40, "raw", 4)
    assert type(found.setting) is float  # as it comes back from a file
    assert found.bytes == PHOTO.size and found.bpp == 24
    assert found.psnr == psnr(PHOTO, PHOTO & 0xF0)
    assert math.isnan(found.ms_ssim) and math.isnan(found.peak_mib)
    assert 0 < found.encode_s < 10 and 0 < found.decode_s < 10
    assert found.level_bpp == (bits_per_pixel(PHOTO.size - 7, 40, 64), bits_per_pixel(7, 40, 64))
    exact = measure(raw(), PHOTO, 0)
    assert exact.psnr == math.inf and exact.level_bpp == ()


def test_ms_ssim_of_photos_that_are_large_enough():
    photo = np.kron(PHOTO, np.ones((5, 5, 1), np.uint8))
    codec = raw(lambda data: np.frombuffer(data, np.uint8).reshape(photo.shape))
    assert measure(codec, photo, 5).ms_ssim == ms_ssim(photo, photo & 0xE0) < 1


def test_a_codec_that_fails_is_named_in_one_line():
    def fail(*_):
        raise OSError("no\n  luck")

    def assert_not(data):
        raise AssertionError

    with pytest.raises(CodecFailure, match=r"^raw at setting 4 failed on a\.png: no luck$"):
        measure(raw(fail), PHOTO, 4, name="a.png")
    with pytest.raises(CodecFailure, match="^raw at setting 2 failed on a photo: no luck$"):
        measure(raw()._replace(encode=fail), PHOTO, 2)
    with pytest.raises(CodecFailure, match="^raw at setting 4 failed on a photo: AssertionError$"):
        measure(raw(levels=assert_not), PHOTO, 4)


def test_a_codec_that_gives_back_another_photo_fails():
    with pytest.raises(CodecFailure, match=r"must have one shape .* got \(40, 64, 3\) and \(39, 64, 3\)"):
        measure(raw(lambda data: PHOTO[1:]), PHOTO, 4)
    with pytest.raises(CodecFailure, match="must be uint8, got uint8 and float64"):
        measure(raw(lambda data: PHOTO / 1), PHOTO, 4)


def test_a_model_of_one_rate(model_file):
    codec = model_codec(model_file())
    assert codec.name == model_file().parent.name and codec.levels
    assert math.isnan(codec.settings[0]) and len(codec.settings) == 1
    assert "L=2" in codec.note
    found = measure(codec, PHOTO, *codec.settings)
    data = codec.encode(PHOTO, math.nan)
    assert found.bytes == len(data)
    assert found.psnr == psnr(PHOTO, decompress(data, model=load(model_file())))
    assert len(found.level_bpp) == 2 and 0 < sum(found.level_bpp) < found.bpp
    with pytest.raises(ValueError, match="only a model of variable rate has settings"):
        model_codec(model_file(), settings=[50])


def test_a_model_of_variable_rate(model_file):
    path = model_file(L=3, rate="variable", channels=12, prior="trainable-logistic")
    assert model_codec(path).settings == (0, 14, 29, 43, 57, 71, 86, 100)
    codec = model_codec(path, settings=[100, 0])
    assert codec.settings == (0, 100)
    low, high = (measure(codec, PHOTO, setting) for setting in codec.settings)
    assert low.bytes < high.bytes and low.psnr != high.psnr
    with pytest.raises(CodecFailure, match="quality must be between 0 and 100, got 101"):
        measure(codec, PHOTO, 101)


def test_effort(model_file):
    path = model_file(channels=12, L=2)
    plain, slow = (model_codec(path, effort=effort).encode(PHOTO, math.nan) for effort in (0, 2))
    assert slow == compress(PHOTO, model=path, effort=2) != plain == compress(PHOTO, model=path)


def test_models_of_one_rate_each_are_one_curve(model_file, tmp_path):
    folder = tmp_path / "shallow"
    folder.mkdir()
    for name, lmbda in (("b", 0.0932), ("a", 0.0018)):
        shutil.copy(model_file(lmbda=lmbda, L=1), folder / f"{name}.safetensors")
    codec = model_codec(folder)
    assert codec.name == "shallow" and codec.settings == (0.0018, 0.0932)
    for setting, name in zip(codec.settings, "ab", strict=True):
        data = codec.encode(PHOTO, setting)
        expected = decompress(data, model=load(folder / f"{name}.safetensors"))
        np.testing.assert_array_equal(codec.decode(data), expected)
    shutil.copy(model_file(lmbda=0.0018), folder / "c.safetensors")
    with pytest.raises(ValueError, match="shallow: several models make a curve only if"):
        model_codec(folder)


def test_models_are_called_after_their_files_or_runs(model_file, tmp_path, monkeypatch):
    run = tmp_path / "L3-logistic"
    run.mkdir()
    shutil.copy(model_file(), run / "model.safetensors")
    shutil.copy(model_file(), run / "best.safetensors")
    names = [model_codec(path).name for path in (run, run / "model.safetensors", run / "best.safetensors")]
    assert names == ["L3-logistic", "L3-logistic", "best"]
    monkeypatch.chdir(run)
    assert model_codec("model.safetensors").name == model_codec(".").name == "L3-logistic"
    with pytest.raises(ValueError, match=r"none\.safetensors: there is no such model file"):
        model_codec("none.safetensors")


def test_the_model_of_the_package():
    assert model_codec().name == "nlvc-1"

"""Rival codecs, each as far as its library is there."""

import sys

import numpy as np
import pytest

from nlvc.evaluation.baselines import available, rivals
from nlvc.evaluation.codecs import measure

NAMES = ["jpeg", "jpeg-444", "webp", "jpeg2000", "avif", "jpegxl", "hevc"]


def photo(height=48, width=72, seed=0):
    """Soft waves in colours and some grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / 16
    waves = (np.sin(rng.normal() * rows + rng.normal() * columns) for _ in range(8))
    waves = sum(wave[..., None] * rng.normal(0, 30, 3) for wave in waves)
    return np.clip(128 + waves + rng.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8)


def rival(name):
    if missing := available()[name]:
        pytest.skip(missing)
    return rivals([name])[0]


@pytest.mark.parametrize("name", NAMES)
def test_more_bytes_buy_more_decibels(name):
    codec = rival(name)
    assert codec.name == name
    first, last = (measure(codec, photo(), setting) for setting in (codec.settings[1], codec.settings[-2]))
    assert first.bytes < last.bytes and 15 < first.psnr + 2 < last.psnr < 60
    assert measure(codec, photo(7, 5), codec.settings[3]).psnr > 15  # odd and tiny


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_is_coded_alike_every_time(name):
    codec = rival(name)
    setting = codec.settings[3]
    assert codec.encode(photo(), setting) == codec.encode(photo(), setting)


@pytest.mark.parametrize("name", ["jpeg-444", "jpeg2000", "avif", "hevc"])
def test_colours_keep_their_resolution(name):
    """A red and a blue as bright in turn, pixel by pixel, are one purple for a codec that halves its colour planes."""
    stripes = np.empty((48, 48, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (150, 60, 60), (60, 80, 150)
    codec = rival(name)
    decoded = codec.decode(codec.encode(stripes, codec.settings[-1])).astype(int)
    assert (decoded[:, ::2, 0] - decoded[:, 1::2, 0]).mean() > 60


def test_a_note_says_library_version_and_settings():
    assert "AVIF" not in rival("jpeg").note
    note = rival("avif").note
    assert "Pillow" in note and "tune=psnr" in note and "speed 6" in note and any(map(str.isdigit, note))


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    missing = available()
    assert list(missing) == NAMES
    assert missing["jpeg"] == "" and missing["jpegxl"].endswith("pip install 'imagecodecs'")
    assert "jpegxl" not in [codec.name for codec in rivals()]
    with pytest.raises(ValueError, match="^jpegxl: .*imagecodecs.*; pip install 'imagecodecs'$"):
        rivals(["jpeg", "jpegxl"])
    with pytest.raises(ValueError, match=r"no rival 'gif': there are jpeg, jpeg-444, .*hevc$"):
        rivals(["gif"])

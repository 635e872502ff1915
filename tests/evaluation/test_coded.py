"""A report rests on files that were written, read again and decoded."""

import numpy as np
import pytest
from PIL import Image

from nlvc.evaluation import RoundTripError, code_photos, coded, ms_ssim, psnr
from nlvc.image_codec import analyse, decompress

SIZES = (7, 9, 3), (40, 64, 3)
NAMES = "first.png", "deep/second.jpg"


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, np.uint8) for size in SIZES]


def test_files_and_rows(untrained, photos, tmp_path):
    model, folder = untrained(), tmp_path / "new" / "files"
    rows = code_photos(model, photos, NAMES, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["first.nlvc", "second.nlvc"]
    for row, photo in zip(rows, photos, strict=True):
        data = (folder / f"{row.name}.nlvc").read_bytes()
        decoded = decompress(data, model=model)
        expected = analyse(photo, model=model)
        assert data == expected.data
        pixels = row.width * row.height
        assert (row.height, row.width, 3) == photo.shape
        assert row.bytes == len(data)
        assert row.bpp == pytest.approx(8 * len(data) / pixels)
        assert row.bpp_estimated == pytest.approx(sum(bits.sum() for bits in expected.level_bits) / pixels)
        assert row.psnr == psnr(photo, decoded)
        assert np.isnan(row.ms_ssim)
        assert len(row.level_bpp) == model.config.L
        assert sum(row.level_bpp) < row.bpp < sum(row.level_bpp) * 1.001 + 8 * (2 * 16 + 60) / pixels
    assert [row.name for row in rows] == ["first", "second"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_photos_large_enough_for_ms_ssim(untrained, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (161, 170, 3), np.uint8)
    model = untrained(L=1)
    [row] = code_photos(model, [photo], ["a"], tmp_path)
    assert row.ms_ssim == ms_ssim(photo, decompress((tmp_path / "a.nlvc").read_bytes(), model=model))
    assert 0 <= row.ms_ssim < 1


def test_the_picture_shows_the_first_photo(untrained, photos, tmp_path):
    code_photos(untrained(), photos[::-1], NAMES, tmp_path, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 2 * photos[1].shape[1]
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    code_photos(untrained(), photos, NAMES, tmp_path / "without")
    assert not list((tmp_path / "without").glob("*.png"))


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("x/a.png", "y/a.png")])
def test_photos_of_one_name_do_not_share_a_file(untrained, photos, tmp_path, names):
    rows = code_photos(untrained(), photos, names, tmp_path)
    assert len({row.name for row in rows}) == 2
    for row, photo in zip(rows, photos, strict=True):
        data = (tmp_path / f"{row.name}.nlvc").read_bytes()
        assert decompress(data, model=untrained()).shape == photo.shape


def test_a_file_that_decodes_to_something_else_is_an_error(untrained, photos, tmp_path, monkeypatch):
    def one_off(data, *, model):
        picture = decompress(data, model=model)
        picture[0, 0, 0] ^= 1
        return picture

    monkeypatch.setattr(coded, "decompress", one_off)
    with pytest.raises(RoundTripError, match=r"first\.nlvc does not decode to what was encoded"):
        code_photos(untrained(), photos, NAMES, tmp_path)


def test_every_photo_needs_a_name(untrained, photos, tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        code_photos(untrained(), photos, NAMES[:1], tmp_path)

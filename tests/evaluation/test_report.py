import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nlvc.evaluation import Row, save_picture, table, write_rows
from nlvc.evaluation.report import colours


def row(name, psnr=30.0, ms_ssim=0.95, estimated=0.5, levels=(0.4, 0.1)):
    return Row(name, 768, 512, 24576, 0.5, estimated, psnr, ms_ssim, levels)


def cells(line):
    return line.replace("bpp (real)", "bpp_(real)").replace("bpp (estimated)", "bpp_(estimated)").split()


def test_table_lists_each_photo_and_the_mean():
    text = table([row("a", psnr=30.0, ms_ssim=0.9), row("b.png", psnr=31.0, ms_ssim=0.96)])
    lines = text.split("\n")
    assert len({len(line) for line in lines}) == 1, "every line ends in the same column"
    assert cells(lines[0])[2:5] == ["bytes", "bpp_(real)", "bpp_(estimated)"]
    assert cells(lines[2]) == ["a", "768x512", "24576", "0.5000", "0.5000", "30.00", "0.9000", "0.4000", "0.1000"]
    assert cells(lines[-1]) == ["mean", "24576", "0.5000", "0.5000", "30.50", "0.9300", "0.4000", "0.1000"]


def test_the_mean_skips_what_is_unknown():
    text = table([row("a", ms_ssim=math.nan, estimated=math.nan), row("b", ms_ssim=0.8, estimated=math.nan)])
    first, mean = text.split("\n")[2], text.split("\n")[-1]
    assert cells(first)[4:7] == ["-", "30.00", "-"]
    assert cells(mean)[3:6] == ["-", "30.00", "0.8000"]


def test_rows_of_several_depths_share_a_table():
    lines = table([row("shallow", levels=(0.5,)), row("deep", levels=(0.3, 0.15, 0.05))]).split("\n")
    assert cells(lines[2])[-3:] == ["0.5000", "-", "-"]
    assert cells(lines[-1])[-3:] == ["0.4000", "0.1500", "0.0500"]


def test_an_exact_copy_has_infinite_psnr():
    assert cells(table([row("a", psnr=math.inf)]).split("\n")[-1])[4] == "inf"


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="at least one photo"):
        table([])


def test_rows_as_a_file_are_not_rounded(tmp_path):
    write_rows(tmp_path / "report.csv", [row("a, b", psnr=1 / 3, levels=(0.5,)), row("c", ms_ssim=math.nan)])
    assert (tmp_path / "report.csv").read_text().splitlines() == [
        "name,width,height,bytes,bpp,bpp_estimated,psnr,ms_ssim,bpp_1,bpp_2",
        '"a, b",768,512,24576,0.5,0.5,0.3333333333333333,0.95,0.5,',
        "c,768,512,24576,0.5,0.5,30.0,nan,0.4,0.1",
    ]


def test_colours_grow_lighter_with_the_value():
    ramp = colours(np.linspace(0, 1, 256))
    luma = ramp @ np.array([0.2126, 0.7152, 0.0722])
    assert ramp.shape == (256, 3) and ramp.dtype == np.uint8
    assert np.all(np.diff(luma) > -0.5) and luma[-1] - luma[0] > 200
    np.testing.assert_array_equal(colours(np.array([[-1.0, 2.0, np.nan]])), ramp[np.array([[0, -1, 0]])])


def drawn(tmp_path, original, maps, *, strides=None, title="a title"):
    path = tmp_path / "picture.png"
    save_picture(path, original, original, maps, title, strides=strides)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def shares(picture, colour):
    return np.all(np.abs(picture - np.array(colour)) <= 2, axis=-1).mean()


def test_picture_shows_both_photos_and_every_map(tmp_path):
    original = np.full((64, 96, 3), (0, 200, 0), np.uint8)
    maps = [np.ones((4, 6)), np.ones((2, 3)), np.zeros((1, 2))]
    picture = drawn(tmp_path, original, maps)
    green, bright, dark = shares(picture, (0, 200, 0)), shares(picture, colours(1)), shares(picture, colours(0))
    area = picture.shape[0] * picture.shape[1]
    assert green * area == pytest.approx(2 * 384 * 256)  # 64 x 96 enlarged four times
    assert bright / dark == pytest.approx(2, rel=0.1)  # two levels are all at their largest, one has nothing


def test_padding_of_a_map_is_cut_where_the_photo_ends(tmp_path):
    original = np.zeros((40, 40, 3), np.uint8)
    bits = np.zeros((4, 4))
    bits[3:] = bits[:, 3:] = 1  # beyond the photo: position 3 starts at pixel 48
    with_strides = shares(drawn(tmp_path, original, [bits], strides=[16]), colours(1))
    without = shares(drawn(tmp_path, original, [bits]), colours(1))
    assert with_strides < 0.01 < 0.05 < without


def test_labels_name_level_shape_rate_and_scale(tmp_path, monkeypatch):
    written = []
    original_text = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        written.append(text)
        return original_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    maps = [np.full((4, 6), 64.0), np.full((1, 1), 2.0)]
    drawn(tmp_path, np.zeros((64, 96, 3), np.uint8), maps, title="gorse, L=2")
    assert "gorse, L=2" in written and "original, 96 x 64" in written and "reconstruction, inf dB PSNR" in written
    assert {"1", "6 x 4", "0.2500 bpp", "64 bits/position"} <= set(written)
    assert {"2", "1 x 1", "2 bits", "2 bits/position"} <= set(written)  # 0.0003 bpp says little


@pytest.mark.parametrize("shape", [(1, 1, 3), (30, 20), (20, 30, 1), (8, 8, 4), (400, 3, 3), (3, 900, 3), (900, 1300)])
@pytest.mark.parametrize("levels", [0, 1, 6])
def test_any_photo_and_depth_gives_a_picture_of_sensible_size(tmp_path, shape, levels):
    picture = drawn(tmp_path, np.zeros(shape, np.uint8), [np.ones((2, 2))] * levels, title="a long title " * 20)
    assert 600 < picture.shape[1] < 1500
    assert picture.shape[0] < 3000


def test_impossible_pictures_are_refused(tmp_path):
    photo = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "picture.png"
    with pytest.raises(ValueError, match="one shape"):
        save_picture(path, photo, photo[:4], [], "")
    with pytest.raises(ValueError, match="2-D array"):
        save_picture(path, photo, photo, [np.ones((2, 2, 3))], "")
    with pytest.raises(ValueError, match="each of the 1 levels is needed, got 2"):
        save_picture(path, photo, photo, [np.ones((2, 2))], "", strides=[16, 32])
    assert not path.exists()

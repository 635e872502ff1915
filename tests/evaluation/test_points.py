"""Measured points in files, and put together into curves."""

import math
import sys

import numpy as np
import pytest

from nlvc.evaluation.points import Point, mean_curves, photo_curves, read_points, write_points


def point(photo="a.png", setting=10.0, *, codec="jpeg", bpp=0.5, psnr=30.0, ms_ssim=0.9, **fields):
    values = dict(set="kodak", width=768, height=512, bytes=24576, encode_s=0.25, decode_s=1 / 3, **fields)
    return Point(photo=photo, codec=codec, setting=setting, bpp=bpp, psnr=psnr, ms_ssim=ms_ssim, **values)


POINTS = [
    point("deep/a, b.png", peak_mib=101.5),
    point("ü.png", math.nan, codec="nlvc-1", psnr=math.inf, ms_ssim=math.nan, level_bpp=(0.4, 0.1)),
    point("ü.png", math.nan, codec="deeper", level_bpp=(0.3, 0.1, 1 / 30)),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_points_come_back_from_a_file(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"points{suffix}"
    for points in (POINTS, POINTS[:1], []):
        write_points(path, points)
        assert repr(read_points(path)) == repr(points)  # nan is not equal to itself
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_csv_is_what_spreadsheets_expect(tmp_path):
    write_points(tmp_path / "points.csv", POINTS[:2])
    assert (tmp_path / "points.csv").read_text(encoding="utf-8").splitlines() == [
        "set,photo,width,height,codec,setting,bytes,bpp,psnr,ms_ssim,encode_s,decode_s,peak_mib,bpp_1,bpp_2",
        'kodak,"deep/a, b.png",768,512,jpeg,10.0,24576,0.5,30.0,0.9,0.25,0.3333333333333333,101.5,,',
        "kodak,ü.png,768,512,nlvc-1,nan,24576,0.5,inf,nan,0.25,0.3333333333333333,nan,0.4,0.1",
    ]


def test_other_files_are_refused(tmp_path, monkeypatch):
    for write_or_read in (lambda path: write_points(path, POINTS), read_points):
        with pytest.raises(ValueError, match=r"points\.txt: points are kept as \.csv or \.parquet"):
            (tmp_path / "points.txt").write_text("")
            write_or_read(tmp_path / "points.txt")
    for content in (b"name,size\na,1\n", b"\xff\xfe", b"set,photo,width\na,b,wide\n"):
        (tmp_path / "other.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.csv: not a file of points \(\w+: .+\)"):
            read_points(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path / "none.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"parquet needs pyarrow \(pip install pyarrow\)"):
        write_points(tmp_path / "points.parquet", POINTS)
    with pytest.raises(ValueError, match=r"parquet needs pyarrow \(pip install pyarrow\)"):
        read_points(tmp_path / "points.parquet")


def test_a_curve_is_a_mean_over_photos_from_the_lowest_rate():
    points = [
        point("a", 20, bpp=0.8, psnr=34, ms_ssim=0.9),
        point("b", 10, bpp=0.3, psnr=28, ms_ssim=math.nan),
        point("a", 10, bpp=0.1, psnr=30, ms_ssim=0.8),
        point("b", 20, bpp=0.6, psnr=30, ms_ssim=math.nan),
        point("a", math.nan, codec="nlvc-1", level_bpp=(0.4, 0.1)),
        point("b", float("nan"), codec="nlvc-1", level_bpp=(0.2, 0.1)),
    ]
    curves = mean_curves(points)
    assert list(curves) == [("kodak", "jpeg"), ("kodak", "nlvc-1")]
    jpeg, nlvc = curves.values()
    assert jpeg.photos == ("a", "b") and jpeg.settings == (10, 20)
    np.testing.assert_allclose(jpeg.bpp, [0.2, 0.7])
    np.testing.assert_allclose(jpeg.psnr, [29, 32])
    np.testing.assert_allclose(jpeg.ms_ssim, [0.8, 0.9])
    np.testing.assert_allclose(jpeg.encode_s, 0.25)
    assert np.isnan(jpeg.peak_mib).all() and jpeg.level_bpp.shape == (2, 0)
    assert np.isnan(nlvc.settings).all() and len(nlvc.settings) == 1
    np.testing.assert_allclose(nlvc.level_bpp, [[0.3, 0.1]])


def test_photo_curves_keep_the_photos_apart():
    points = [point(photo, setting, bpp=setting / 10, psnr=psnr) for photo, psnr in (("a", 30), ("b", 40))
              for setting in (2, 1, 4)]  # fmt: skip
    [curves] = photo_curves(points).values()
    np.testing.assert_allclose(curves.bpp, [[0.1, 0.2, 0.4]] * 2)
    np.testing.assert_allclose(curves.psnr, [[30] * 3, [40] * 3])


def test_models_of_several_depths_in_one_curve():
    points = [point("a", 1, bpp=0.1, level_bpp=(0.05, 0.05)), point("a", 2, bpp=0.3, level_bpp=(0.2, 0.05, 0.05))]
    [curve] = mean_curves(points).values()
    np.testing.assert_allclose(curve.level_bpp, [[0.05, 0.05, 0], [0.2, 0.05, 0.05]])


def test_means_are_never_over_different_photos():
    points = [point("a", 1, bpp=0.1), point("b", 1, bpp=9), point("a", 2, bpp=0.2)]
    [curve] = mean_curves(points).values()
    assert curve.photos == ("a",)
    np.testing.assert_allclose(curve.bpp, [0.1, 0.2])
    with pytest.raises(ValueError, match="jpeg has no photo of kodak that was coded at each of its 2 settings"):
        mean_curves([point("a", 1), point("b", 2)])


def test_the_same_photo_twice_is_an_error():
    with pytest.raises(ValueError, match=r"jpeg has a\.png of kodak twice at setting 10"):
        mean_curves([point(), point()])

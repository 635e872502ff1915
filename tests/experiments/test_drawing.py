"""Every kind of picture is written whole, with what may be missing in it."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def drawing():
    """The module, where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    import drawing

    return drawing


def check(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 150
    assert list(path.parent.iterdir()) == [path]


def test_intervals(drawing, tmp_path):
    rows = [("L=3", -2.0, -3.0, -1.0, "kodak"), ("L=3", 1.0, np.nan, np.nan, "turbine"), ("L=4", np.nan, 0, 0, "kodak")]
    drawing.intervals(rows, tmp_path / "a.png", "Rate of more levels", "BD-rate, %")
    check(tmp_path / "a.png")


def test_curves(drawing, tmp_path):
    x = np.array([0.1, 0.4, 1.6])
    lines = [("one", x, x + 30, x + 29, x + 31), ("two", x, [30.1, np.nan, 31.6], None, None, True)]
    drawing.curves(lines, tmp_path / "b.png", "Curves", "bpp", "PSNR, dB", log_x=True, log_y=True)
    check(tmp_path / "b.png")


def test_curves_of_which_nothing_is_known(drawing, tmp_path):
    lines = [("one", [1, 2], [np.nan, np.nan], None, None)]
    drawing.curves(lines, tmp_path / "d.png", "Curves", "levels", "%", log_y=True, ticks=[1, 2])
    check(tmp_path / "d.png")


def test_stacks(drawing, tmp_path):
    drawing.stacks(["L=1", "L=2"], {"z_1": [0.5, 0.4], "z_2": [0, 0.05]}, tmp_path / "c.png", "Bits", "bpp")
    check(tmp_path / "c.png")

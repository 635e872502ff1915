"""Pictures are written, whatever is missing from what they show."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from drawing import curves, intervals, stacks  # noqa: E402
from PIL import Image  # noqa: E402


def test_pictures(tmp_path):
    x = np.arange(1, 4)
    curves([("a", x, x / 3, x / 4, x / 2), ("b", x, [math.nan] * 3, None, None), ("c", [2], [0.1], [0.0], [0.2])],
           tmp_path / "curves.png", "title", "x", "y")  # fmt: skip
    curves([("a", x, 10.0**x, None, None)], tmp_path / "logs.png", "title", "x", "y", log_x=True, log_y=True, ticks=x)
    intervals([("one", 1, 0, 2, "a"), ("two", math.nan, math.nan, math.nan, "b")], tmp_path / "rows.png", "title", "x")
    stacks(["one", "two"], {"a": [1, 2], "b": [3, 4]}, tmp_path / "bars.png", "title", "x")
    for name in ("curves", "logs", "rows", "bars"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert picture.width > 600 and np.asarray(picture.convert("L")).std() > 5

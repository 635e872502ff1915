"""The best L by rate: what is kept of models of several numbers of channels."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from effects import Runs


def curve(low: float, high: float, gain: float) -> Runs:
    """Two photos, three seeds and four rates of a straight line over the logarithm of the rate, so many dB higher."""
    bpp = np.tile(np.geomspace(low, high, 4), (3, 2, 1))
    return Runs(bpp, 30 + 5 * np.log(bpp) + gain)


@pytest.fixture
def report():
    """The function, where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    import best_levels

    return best_levels.report


def test_models_of_other_channels_reach_other_rates(tmp_path, report):
    kinds = {
        channels: {"L = 2": curve(low, high, 0.0), "L = 3": curve(low, high, gain)}
        for channels, low, high, gain in ((150, 0.15, 0.95, 0.25), (320, 0.35, 1.9, -0.125))
    }
    report(SimpleNamespace(out=tmp_path), "small", "set", kinds)
    few, many = (tmp_path / "best_levels-set.md").read_text().split("## 320 channels")
    assert "## 150 channels\n\nBudget: small; 2 photos, 3 seeds." in few
    assert "| 0.16 | +0.25 [+0.25, +0.25] | L = 3 (100%)" in few and "| 1.00 " not in few
    assert "| 1.78 | -0.12 [-0.12, -0.12] | L = 2 (100%)" in many and "| 0.16 " not in many
    with (tmp_path / "best_levels-set.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["channels"], row["L"]) for row in rows} == {
        (channels, level) for channels in ("150", "320") for level in ("L = 2", "L = 3")
    }
    of_few, of_many = ([float(row["bpp"]) for row in rows if row["channels"] == its] for its in ("150", "320"))
    assert max(of_few) < 0.95 and min(of_many) > 0.35 and max(of_many) > 1.7
    assert all((tmp_path / f"best_levels-set-{channels}.png").stat().st_size > 5000 for channels in (150, 320))

"""Each experiment at its smoke budget: it trains, codes, compares, and leaves tables and pictures."""

import csv
from pathlib import Path

import pytest

EXPERIMENTS = {
    "levels": ("levels-embedded", "BD-rate against L = 2"),
    "best_levels": ("best_levels-embedded", "PSNR in dB against L = 2"),
    "priors": ("priors-embedded", "Friedman"),
    "complexity": ("complexity", "kMAC/pixel"),
    "geometry": ("geometry-embedded", "bits of a zero"),
    "domains": ("domains-embedded", "learnt from"),
    "findings": ("findings", "verdict"),
}
"""In an order in which each finds the cells that others have trained."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that all share."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name, out, run_python):
    pytest.importorskip("matplotlib")
    done = run_python(Path("experiments") / f"{name}.py", "--out", out)
    assert done.returncode == 0, done.stderr
    stem, word = EXPERIMENTS[name]
    table = (out / f"{stem}.md").read_text()
    assert "Budget: smoke" in table and word in table and table in done.stdout + "\n"
    if name == "findings":  # of the tables of the others
        assert "tapered against common" in table
        return
    with (out / f"{stem}.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) >= 2
    pictures = list(out.glob(f"{name}*.png"))
    assert pictures and all(picture.stat().st_size > 5000 for picture in pictures)

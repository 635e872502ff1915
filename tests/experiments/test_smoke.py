"""Each experiment at its smoke budget: it trains, codes, compares, and leaves tables and pictures.

What shares few cells with these is in files of its own, so that several processes have as much to do.
"""

import pytest

EXPERIMENTS = {
    "levels": ("levels-embedded", "BD-rate against L = 2"),
    "best_levels": ("best_levels-embedded", "PSNR in dB against L = 2"),
    "priors": ("priors-embedded", "Friedman"),
    "complexity": ("complexity", "kMAC/pixel"),
}
"""In an order in which each finds the cells that others have trained: the table of each, and a word of it."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that all share."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name, out, smoke):
    smoke(name, out, *EXPERIMENTS[name])


def test_findings_of_the_tables_of_the_others(out, run_experiment):
    table = run_experiment("findings", out, "findings")
    assert "verdict" in table and "L = 2 against the serial context" in table

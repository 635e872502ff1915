"""The experiments are scripts beside each other: their folder is where they find what they share."""

import csv
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"

if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))


@pytest.fixture
def run_experiment(run_python):
    """run_experiment(name, out, stem) -> the table STEM.md that an experiment at its smoke budget leaves in OUT."""
    pytest.importorskip("matplotlib")

    def run(name: str, out: Path, stem: str) -> str:
        done = run_python(FOLDER / f"{name}.py", "--out", out)
        assert done.returncode == 0, done.stderr
        table = (out / f"{stem}.md").read_text()
        assert "Budget: smoke" in table and table in done.stdout + "\n"
        return table

    return run


@pytest.fixture
def smoke(run_experiment):
    """smoke(name, out, stem, word) checks the table, which has a word, its rows in CSV, and the pictures."""

    def check(name: str, out: Path, stem: str, word: str) -> None:
        assert word in run_experiment(name, out, stem)
        with (out / f"{stem}.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) >= 2
        pictures = list(out.glob(f"{name}*.png"))
        assert pictures and all(picture.stat().st_size > 5000 for picture in pictures)

    return check

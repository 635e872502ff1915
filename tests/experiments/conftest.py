"""The experiments are scripts beside each other: their folder is where they find what they share."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments"

if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

"""The models that come with the package, so that a photo is coded with no `--model` and no download.

Each is one file NAME.safetensors in `FOLDER`, with NAME.json beside it: what it was trained on, for how long, and what
it achieves. A model that was ever released stays, because the files that it wrote need it; better ones come beside it.
"""

from pathlib import Path

FOLDER = Path(__file__).with_name("weights")
DEFAULT = FOLDER / "nlvc-1.safetensors"
"""What new files are written with."""

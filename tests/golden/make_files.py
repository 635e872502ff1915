"""Writes model.safetensors, *.nlvc and files.json: python tests/golden/make_files.py

Only for a deliberate change of format, which must then raise bitstream.VERSION and weights.FORMAT: what the files that
are there decode to must stay the same for ever.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from nlvc import coding, image_codec
from nlvc.config import Config
from nlvc.image_codec.coder import encode
from nlvc.image_codec.tiles import Grid
from nlvc.models.weights import save_model

FOLDER = Path(__file__).parent
# Every step that a frozen network can have, in few and small levels.
CONFIG = Config(
    L=3, strides=(8, 2, 1), channels=4, filters=4, latent_filters=4, dims="tapered", prior="factorized",
    conditional="gaussian", transform="residual", activation="gdn", linear_path=True, lmbda=0.05,
)  # fmt: skip


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Patches, slopes and noise, uint8."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.integers(0, 200, (9, 9, channels)), np.ones((16, 16, 1)))[:height, :width]
    slopes = np.arange(height)[:, None, None] / 3 + np.arange(width)[:, None] / 5
    return np.clip(patches + slopes + rng.normal(0, 20, patches.shape), 0, 255).astype(np.uint8)


def tiled(image: np.ndarray, model: image_codec.Model, tile: int) -> bytes:
    """A file of smaller tiles than `compress` makes."""
    height, width = image.shape[:2]
    streams, _ = encode(model, Grid(model.config, height, width, tile), image)
    header = coding.Header(0, width, height, "RGB", model.fingerprint, coding.LANES, model.config.L, tile)
    return coding.pack(header, streams, {})


def main():
    sys.path.append(str(FOLDER.parent))
    from random_models import random_model

    save_model(FOLDER / "model.safetensors", CONFIG, random_model(CONFIG, seed=1))
    model = image_codec.load(FOLDER / "model.safetensors")
    files = {
        "grey": image_codec.compress(picture(37, 50, 1, seed=0), model=model),
        "alpha": image_codec.compress(picture(24, 31, 4, seed=1), model=model, metadata={"iCCP": b"a profile"}),
        "tiles": tiled(picture(70, 95, 3, seed=2), model, 32),
    }
    sums = {}
    for name, data in files.items():
        (FOLDER / f"{name}.nlvc").write_bytes(data)
        pixels = image_codec.decompress(data, model=model)
        sums[name] = {"shape": pixels.shape, "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    (FOLDER / "files.json").write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Which bin is written for a latent: not always the nearest, because others may cost less."""

import numpy as np

from nlvc import coding
from nlvc.config import Config
from nlvc.models.rates import lmbda_of

CAUTION = 1.5
"""What an error of a coefficient weighs, against its own square: errors next to each other add up in the networks."""


def nearest(offsets: np.ndarray) -> np.ndarray:
    """Distances from the mean, in bins -> symbols, int32."""
    return np.rint(offsets).astype(np.int32)


def cheapest(offsets: np.ndarray, tables: coding.Tables, indices: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The nearest symbols, or where that lowers bits + weight * error^2 their neighbours towards the mean, int32.

    offsets: (h, w, C) distances from the mean, in bins; indices: (h, w, C), the table of each; weight: (C,), bits that
    a squared bin is worth (`distortion_weight`).
    """
    symbols = nearest(offsets)
    places = np.nonzero(symbols)
    near, distance, index = symbols[places], offsets[places], indices[places]
    low = near - np.sign(near)
    saved = coding.ideal_bits(tables, near, index) - coding.ideal_bits(tables, low, index)
    worse = (distance - low) ** 2 - (distance - near) ** 2
    symbols[places] = np.where(saved > weight[places[-1]] * worse, low, near)
    return symbols


def distortion_weight(config: Config, quality: int | None, gain: np.ndarray) -> np.ndarray | None:
    """Bits that a squared bin of z_1 is worth, (C,), or None where its error does not tell that of the pixels.

    gain: bins per unit of the orthonormal linear path, (C,): its squared errors are those of the samples, 3 a pixel.
    """
    if not config.linear_path or config.distortion != "mse":
        return None
    lmbda = config.lmbda if quality is None else lmbda_of(quality)
    return CAUTION * lmbda * 255**2 / (3 * np.square(gain, dtype=np.float64))

"""Which bin is written for a latent: not always the nearest, because others may cost less.

`cheapest` looks at each latent alone; `improved` knows what each does to the whole picture, too.
"""

import numpy as np

from nlvc import coding
from nlvc.config import Config
from nlvc.models.frozen import LATENT_LIMIT, MEAN_UNITS
from nlvc.models.rates import lmbda_of

CAUTION = 2.0
"""What an error of a coefficient weighs, against its own square: errors next to each other add up in the networks."""
CURVATURE = 0.75
"""The same where the picture's own gradient is known. Less than 1, because the networks even out what is small; with
less than 0.65 changes next to each other disturb one another, as all of a pass are made at once."""


def nearest(offsets: np.ndarray) -> np.ndarray:
    """Distances from the mean, in bins -> symbols, int32."""
    return np.rint(offsets).astype(np.int32)


def cheapest(offsets: np.ndarray, tables: coding.Tables, indices: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The nearest symbols, or where that lowers bits + weight * error^2 their neighbours towards the mean, int32.

    offsets: (..., C) distances from the mean, in bins; indices: as many, the table of each; weight: as many or (C,),
    bits that a squared bin is worth (`distortion_weight`).
    """
    symbols = nearest(offsets)
    places = np.nonzero(symbols)
    near, distance, index = symbols[places], offsets[places], indices[places]
    weight = np.broadcast_to(weight, offsets.shape)[places]
    low = near - np.sign(near)
    saved = coding.ideal_bits(tables, near, index) - coding.ideal_bits(tables, low, index)
    worse = (distance - low) ** 2 - (distance - near) ** 2
    symbols[places] = np.where(saved > CAUTION * weight * worse, low, near)
    return symbols


def improved(
    symbols: np.ndarray, gradient: np.ndarray, tables: coding.Tables, indices: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """The symbols, or where that lowers bits + error their neighbours up or down, int32.

    symbols, gradient, indices: (h, w, C), gradient: of the picture's error in bits, by bins; weight: (C,), bits that
    a squared bin is worth (`distortion_weight`).
    """
    weight = CURVATURE * np.broadcast_to(weight, symbols.shape)
    # Any other symbol leaves the mean, which saves no bits: there must be something else that it lowers.
    places = np.nonzero((symbols != 0) | (np.abs(gradient) > weight))
    old, slope, curve, index = symbols[places], gradient[places], weight[places], indices[places]
    bits = coding.ideal_bits(tables, old, index)
    up, down = (coding.ideal_bits(tables, old + by, index) - bits + by * slope + curve for by in (1, -1))
    found = symbols.copy()
    found[places] += np.where(np.minimum(up, down) < 0, np.where(up < down, 1, -1), 0).astype(np.int32)
    return found


def in_units(symbols, means: np.ndarray) -> np.ndarray:
    """Dequantised latents as the networks see them, int16."""
    units = np.asarray(symbols, np.int64) * MEAN_UNITS + means
    return np.clip(units, -LATENT_LIMIT, LATENT_LIMIT).astype(np.int16)


def distortion_weight(config: Config, quality: int | None, gain: np.ndarray) -> np.ndarray | None:
    """Bits that a squared bin of z_1 is worth, (C,), or None where its error does not tell that of the pixels.

    gain: bins per unit of the orthonormal linear path, (C,): its squared errors are those of the samples, 3 a pixel.
    """
    if not config.linear_path or config.distortion != "mse":
        return None
    return 255**2 * error_worth(config, quality) / np.square(gain, dtype=np.float64)


def error_worth(config: Config, quality: int | None) -> float:
    """Bits that a squared error of a sample is worth, in grey levels: a pixel has three samples."""
    return (config.lmbda if quality is None else lmbda_of(quality)) / 3

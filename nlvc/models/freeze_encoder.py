"""A trained model's encoder as arrays: constants multiplied in, a quarter of the space.

What these become again when a file is written is `models.inference`.
"""

import math

import jax
import numpy as np

from nlvc.config import Config
from nlvc.models.energy import UNIT
from nlvc.models.nested import spread
from nlvc.models.transforms import ZERO_UNIT


def encoder_arrays(config: Config, params: dict) -> dict[str, np.ndarray]:
    """What `inference.unpacked` takes, flat: a quarter of the space, because an encoder may round.

    Kernels are int8 times a float32 a channel; matrices, whose products reach hundreds of bins, float16.
    """
    arrays = {}
    for name, value in flatten(nested_encoder(config, params)).items():
        if value.ndim == 4:
            step = np.maximum(np.abs(value).max(axis=(0, 1, 2)) / 127, np.float32(1e-30))
            value, arrays[f"encoder_steps/{name}"] = np.rint(value / step).astype(np.int8), step
        elif value.ndim > 1 and 1e-3 < np.abs(value).max() < 1e4:
            value = value.astype(np.float16)
        arrays[f"encoder/{name}"] = value
    return arrays


def nested_encoder(config: Config, params: dict) -> dict:
    """What `models.inference` takes: constants multiplied in, float32."""
    unit = ZERO_UNIT if config.linear_path else 1.0
    encoder = {"analysis": scaled_last(plain(params["analysis"]), unit), "gain": gain_of(params)}
    if config.linear_path:
        basis = np.asarray(params["analysis_basis"])
        encoder["basis"] = basis / math.sqrt(len(basis))
    for level in range(1, config.L):
        gain = gain_of(params, level + 1)
        network = scaled_last(plain(params[f"level_analyses_{level - 1}"]), unit * gain)
        network["entry"] = 1 / np.asarray(spread(params[f"log_scale_{level}"])).ravel()
        if config.linear_path:
            path = params[f"energy_paths_{level - 1}"]
            network["energy"] = UNIT * gain * np.asarray(path["analysis"])
            network["energy_bias"] = gain * np.asarray(path["bias"])
        encoder[f"level_{level}"] = network
    return jax.tree.map(np.float32, encoder)


def plain(params: dict) -> dict:
    """The same nested dict with GDN's roots squared."""
    if "gamma_root" in params:
        return {"beta": np.asarray(params["beta_root"]) ** 2 + 1e-6, "gamma": np.asarray(params["gamma_root"]) ** 2}
    return {name: plain(value) if isinstance(value, dict) else np.asarray(value) for name, value in params.items()}


def scaled_last(network: dict, factor) -> dict:
    """The network with its last convolution times a factor, or one for each of its channels."""
    last = last_convolution(network)
    return {**network, last: {name: np.float32(factor) * value for name, value in network[last].items()}}


def last_convolution(network: dict) -> str:
    """The name of its highest number."""
    return max((name for name in network if name.startswith("Conv_")), key=lambda name: int(name.rsplit("_", 1)[1]))


def flatten(params: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    found = {}
    for name, value in params.items():
        found.update(flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return found


def gain_of(params: dict, level: int = 1) -> np.ndarray:
    """Bins of z_level for one, (C,)."""
    return np.exp(np.asarray(params["log_gain" if level == 1 else f"log_gain_{level}"], np.float64))

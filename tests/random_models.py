"""Frozen models that were never trained: random weights of the usual size, in seconds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from nlvc.config import Config
from nlvc.image_codec.freezing import freeze_model
from nlvc.models.freeze_encoder import last_convolution
from nlvc.models.nested import NestedLatentModel, log_gains
from nlvc.models.transforms import ZERO_UNIT


def random_params(config: Config, seed: int = 0) -> dict:
    """Parameters of `NestedLatentModel(config)`."""
    key, photo = jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(NestedLatentModel(config).init, key, photo, key)["params"]
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: rng.normal(0, (s.shape[-1] / s.size) ** 0.5, s.shape).astype(np.float32), shapes)
    # GDNs near 1: their powers are divided by, and inverse ones one behind the other would grow without end.
    params = jax.tree.map_with_path(lambda path, p: p * np.float32(0.1 if "GDN" in str(path) else 1), params)
    params = jax.tree.map_with_path(lambda path, p: p + np.float32("beta_root" in str(path)), params)
    params["log_gain"] = np.asarray(log_gains(config, params["log_gain"].shape))
    if config.linear_path:
        # Bases are stored with entries around 1.
        for name in ("analysis_basis", "synthesis_basis"):
            params[name] = params[name] * np.float32(len(params[name]) ** 0.5)
        # Beside the linear path networks count in small units, and would say next to nothing; those of pixels say less.
        for name, network in params.items():
            if isinstance(network, dict) and "Conv_0" in network:
                last, share = last_convolution(network), 1 / 16 if name in ("analysis", "synthesis") else 1
                network[last] = {name: p * np.float32(share / ZERO_UNIT) for name, p in network[last].items()}
    return params


def random_model(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a frozen model; nothing is optimised, because the programs run for milliseconds."""
    changes = {"jax_disable_most_optimizations": True, "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: jax.config.values[name] for name in changes}
    side = max(2 * math.prod(config.level_strides), 32)
    crops = np.random.default_rng(seed).random((2, side, side, 3), np.float32)
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        return freeze_model(config, random_params(config, seed), crops)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)

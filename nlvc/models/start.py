"""Where training starts: from a transform code, not from noise.

An ordinary initialisation spends its first thousands of steps finding what the Karhunen-Loève transform knows. Here
the linear path is that transform of the training crops, and every conditional p(z_l|z_{l+1}) starts as the best
distribution that does not look at z_{l+1}: zero mean, the channel's own scale.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from nlvc.config import Config
from nlvc.models.nested import NestedLatentModel

START_DEVIATION = 0.7
"""Standard deviation, in bins, that every channel of z_2..z_L starts with. Far smaller ones drown in the noise of a
bin, cost nothing, tell nothing and stay so: the deeper levels collapse. Larger ones cost more than they tell."""

# Standard deviation to the scale parameter of each family.
_SCALE_OF_STD = {"gaussian": 1.0, "logistic": math.sqrt(3) / math.pi, "laplace": math.sqrt(0.5)}


def initialise(config: Config, key: jax.Array, crops: np.ndarray) -> dict:
    """Parameters of `NestedLatentModel(config)`, started from crops (N, P, P, 3) in [0, 1], N about 64 or more."""
    model = NestedLatentModel(config)
    params = jax.jit(model.init)(key, jnp.asarray(crops[:1]), key)["params"]
    if config.linear_path:
        basis = karhunen_loeve(crops, config.level_strides[0], config.channels)
        basis = jnp.asarray(basis * np.float32(len(basis) ** 0.5))
        # Two copies: the training step gives away its buffers, and no buffer can be given twice.
        params = {**params, "analysis_basis": basis, "synthesis_basis": basis.copy()}
    infer = jax.jit(lambda params, x: model.apply({"params": params}, x, method="infer"))
    for level in range(1, config.L + 1):
        # Level by level, because the level above sees z_l / scale.
        z = infer(params, jnp.asarray(crops[:64]))[level - 1]
        deviation = jnp.maximum(jnp.sqrt(jnp.mean(z * z, axis=(0, 1, 2))), 1e-3)
        if level > 1:
            params = _scale_output(params, f"level_analyses_{level - 2}", START_DEVIATION / deviation)
            deviation = jnp.full_like(deviation, START_DEVIATION)
        family = config.conditional if level < config.L else "logistic"
        params = {**params, f"log_scale_{level}": jnp.log(jnp.maximum(_SCALE_OF_STD[family] * deviation, 0.05))}
    return params


def _scale_output(params: dict, transform: str, gain: jax.Array) -> dict:
    """Multiplies the channels that a transform gives, (C,), by scaling its last layer."""
    layers = params[transform]
    last = max(layers, key=lambda name: int(name.rsplit("_", 1)[1]))
    scaled = {name: value * gain.reshape(*[1] * (value.ndim - 1), -1) for name, value in layers[last].items()}
    return {**params, transform: {**layers, last: scaled}}


def karhunen_loeve(crops: np.ndarray, block: int, components: int) -> np.ndarray:
    """Orthonormal basis (3 block^2, components), float32, of the blocks of crops - 1/2, strongest component first."""
    count, height, width, _ = crops.shape
    rows, columns = height // block, width // block
    blocks = crops[:, : rows * block, : columns * block].reshape(count, rows, block, columns, block, 3)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(-1, block * block * 3).astype(np.float64) - 0.5
    # Uncentred: z_1 = 0 must mean mid-grey, since the synthesis adds only 1/2.
    _, vectors = np.linalg.eigh(blocks.T @ blocks)
    return np.ascontiguousarray(vectors[:, ::-1][:, :components], dtype=np.float32)

"""Where training starts: from an adaptive transform code, not from noise.

An ordinary initialisation spends its first thousands of steps finding what classical transforms know. Here the linear
path starts as lapped cosines times the Karhunen-Loève transform of the colours of the training crops, each z_{l+1}
tells the strongest components of the local energies of z_l, and p(z_l|z_{l+1}) starts with zero mean and the scales
which those energies predict. Without the linear path (preset paper) p(z_l|z_{l+1}) starts as the best distribution that
does not look at z_{l+1}.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nlvc.config import LAMBDAS, Config
from nlvc.models import rates
from nlvc.models.energy import UNIT
from nlvc.models.factorized import init_factorized
from nlvc.models.lapped import cosines, prefilter
from nlvc.models.layers import log_energy, space_to_depth
from nlvc.models.nested import NestedLatentModel

START_DEVIATION = 0.7
"""Standard deviation, in bins, that every channel of z_2..z_L starts with. Far smaller ones drown in the noise of a
bin, cost nothing, tell nothing and stay so: the deeper levels collapse. Larger ones cost more than they tell."""

COARSER = 1.5
"""Bins of z_2.. are so much wider than what is best if all elements of the level below are busy (measured)."""

# Standard deviation to the scale parameter of each family.
_SCALE_OF_STD = {"gaussian": 1.0, "logistic": math.sqrt(3) / math.pi, "laplace": math.sqrt(0.5)}


def initialise(config: Config, key: jax.Array, crops: np.ndarray, transform: dict | None = None) -> dict:
    """Parameters of `NestedLatentModel(config)`, started from crops (N, P, P, 3) in [0, 1].

    N: some hundreds or more; levels are measured on 256 of them, or 64 for a variable rate. transform: the parameters
    of `nested.TRANSFORM`, where they are known already.
    """
    model, variable = NestedLatentModel(config), config.rate == "variable"
    params = jax.jit(model.init)(key, jnp.asarray(crops[:1]), key)["params"]
    if transform is not None:
        params = {**params, **jax.tree.map(jnp.array, transform)}
    elif config.linear_path:
        basis = cosine_basis(crops, config.level_strides[0], config.channels)
        basis = jnp.asarray(basis * np.float32(len(basis) ** 0.5))
        # Two copies: the training step gives away its buffers, and no buffer can be given twice.
        params = {**params, "analysis_basis": basis, "synthesis_basis": basis.copy()}
    transformed, above = (
        jax.jit(functools.partial(model.apply, method=name), static_argnums=1 if name == "above" else ())
        for name in ("transformed", "above")
    )
    # For the levels' statistics, of fewer numbers, a part of the crops is enough.
    size = 64 if not variable else 16
    batches = [jnp.asarray(crops[first : first + size]) for first in range(0, min(len(crops), 4 * size), size)]
    knots = rates.hats(jnp.array(LAMBDAS)) if variable else [None]
    weights = lambda knot, count: None if knot is None else jnp.tile(knot[None], (count, 1))  # noqa: E731
    latents = [
        np.concatenate([transformed({"params": params}, x, weights(knot, len(x))) for x in batches]) for knot in knots
    ]
    for level in range(1, config.L + 1):
        # Level by level, because the level above sees z_l / spread; and at every knot of a variable rate.
        if level > 1:
            latents = [
                np.asarray(above({"params": params}, level - 1, z, weights(knot, len(z))))
                for z, knot in zip(latents, knots, strict=True)
            ]
        deviations = [np.maximum(np.sqrt(np.mean(z * z, axis=(0, 1, 2))), 1e-3) for z in latents]
        if level > 1 and not config.linear_path:
            gain = START_DEVIATION / deviations[0]
            params = _scale_output(params, f"level_analyses_{level - 2}", gain)
            latents, deviations = [latents[0] * gain], [np.full_like(deviations[0], START_DEVIATION)]
        if level < config.L and config.linear_path:
            path, deviations = energy_path(latents, config.level_strides[level], config.level_channels[level])
            path["bias"] = path["bias"] if variable else path["bias"][0]
            params = {**params, f"energy_paths_{level - 1}": jax.tree.map(jnp.asarray, path)}
        family = config.conditional if level < config.L else "logistic"
        scales = np.maximum(_SCALE_OF_STD[family] * np.stack(deviations), 0.05)
        log_scale = jnp.asarray(np.log(scales if variable else scales[0]), jnp.float32)
        params = {**params, f"log_scale_{level}": log_scale}
    if config.prior == "factorized":
        # As a logistic of that size.
        size = np.exp(np.log(scales).mean(axis=0))
        params["prior_factors"] = init_factorized(key, config.level_channels[-1], init_scale=jnp.float32(size))
    return params


def energy_path(
    latents: list[np.ndarray], stride: int, components: int
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The start of an `EnergyPath` above z, and the standard deviations (C,) that its scales multiply.

    latents: z (N, h, w, C) at each knot of the rate, or at the only one; the bias has a row for each.

    An error of d in a log scale costs about d^2 nats an element, so a component coded in bins of width D costs
    stride^2 D^2 / 12 - ln D nats: least at D^2 = 6 / stride^2, or more where elements that are nearly always 0 do not
    mind (`COARSER`). Energies of few samples are noisy in all components alike; those that do not rise above that
    floor, the median, start silent.
    """
    energies = [np.asarray(log_energy(jnp.asarray(z), stride), np.float64) for z in latents]
    centres = [energy.mean(axis=(0, 1, 2)) for energy in energies]
    rows = np.concatenate([(e - c).reshape(-1, e.shape[-1]) for e, c in zip(energies, centres, strict=True)])
    strengths, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    heard = np.maximum(1 - np.median(strengths) / np.maximum(strengths, 1e-12), 0)[::-1][:components]
    vectors = vectors[:, ::-1][:, :components]
    analysis = vectors * heard * stride / (COARSER * math.sqrt(6))
    coded = np.round(rows @ analysis)
    # Least squares, with a trace of ridge because silent components are all zero.
    synthesis = np.linalg.solve(coded.T @ coded + 1e-3 * len(coded) * np.eye(components), coded.T @ rows)
    deviations = []
    for z, energy, change in zip(latents, energies, np.split(coded @ synthesis, len(latents)), strict=True):
        change = change.reshape(energy.shape).repeat(stride, axis=1).repeat(stride, axis=2)
        deviations.append(np.sqrt(np.mean((z / np.exp(change[:, : z.shape[1], : z.shape[2]])) ** 2, axis=(0, 1, 2))))
    bias = np.stack([-centre @ analysis for centre in centres])
    path = {"analysis": analysis / UNIT, "bias": bias, "synthesis": synthesis / UNIT}
    return {name: value.astype(np.float32) for name, value in path.items()}, deviations


def _scale_output(params: dict, transform: str, gain: jax.Array) -> dict:
    """Multiplies the channels that a transform gives, (C,), by scaling its last layer."""
    layers = params[transform]
    last = max(layers, key=lambda name: int(name.rsplit("_", 1)[1]))
    scaled = {name: value * gain.reshape(*[1] * (value.ndim - 1), -1) for name, value in layers[last].items()}
    return {**params, transform: {**layers, last: scaled}}


def cosine_basis(crops: np.ndarray, block: int, components: int) -> np.ndarray:
    """Orthonormal basis (3 block^2, components), float32, for the blocks of prefiltered crops - 1/2, strongest first.

    Cosines along rows and columns, times the Karhunen-Loève transform of the three colours. That of whole blocks
    packs more energy into fewer components, but mixes edges of all directions; few cosines are large at a time, and
    what counts for the rate is that (8 % fewer bits).
    """
    height, width = (side // block * block for side in crops.shape[1:3])

    def batches():
        for first in range(0, len(crops), 64):
            # Uncentred: z_1 = 0 must mean mid-grey, since the synthesis adds only 1/2.
            yield crops[first : first + 64, :height, :width].astype(np.float32) - np.float32(0.5)

    samples = (x.reshape(-1, 3).astype(np.float64) for x in batches())
    _, colours = np.linalg.eigh(sum(x.T @ x for x in samples))
    rows = cosines(block).T
    basis = np.einsum("au,bv,cd->abcuvd", rows, rows, colours).reshape(3 * block**2, -1)
    energies = 0.0
    for x in batches():
        blocks = np.asarray(space_to_depth(prefilter(x, block), block)).reshape(-1, len(basis))
        energies = energies + np.square(blocks @ basis.astype(np.float32)).sum(axis=0)
    strongest = np.argsort(-energies, kind="stable")[:components]
    return np.ascontiguousarray(basis[:, strongest], dtype=np.float32)

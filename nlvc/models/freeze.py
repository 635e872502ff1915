"""A trained model to a frozen one: ranges measured on photos, weights in int8, the rest integer scales and tables."""

import collections
import math
from collections.abc import Iterable

import jax
import numpy as np

from nlvc.config import Config
from nlvc.models import context, inference
from nlvc.models.calibration import Calibrator, Freezer
from nlvc.models.context import hyper
from nlvc.models.energy import UNIT
from nlvc.models.freeze_encoder import encoder_arrays, gain_of, last_convolution, nested_encoder
from nlvc.models.freeze_transform import around, binned, freeze_transform, stacked
from nlvc.models.frozen import (
    LATENT_LIMIT,
    MEAN_UNITS,
    SCALE_UNITS,
    crop,
    level_margins,
    level_parameters,
    level_synthesis,
)
from nlvc.models.layers import causal_mask
from nlvc.models.nested import SCALE_MAX, SCALE_MIN, spread
from nlvc.models.transforms import ZERO_UNIT

SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / 63
LARGEST_LOG_SCALE = 16.0
"""Bound of the logarithms of scales, with room to spare: a scale of e^16 bins is no latent's."""


def level_calibrator(config: Config, params: dict, level: int, ranges: dict | None = None) -> Calibrator:
    """`frozen.level_synthesis` in float, for p(z_level | z_{level+1})."""
    network = params[f"level_syntheses_{level - 1}"]
    last = last_convolution(network)
    sizes = [np.asarray(spread(params[f"log_scale_{n}"]), np.float64).ravel() for n in (level, level + 1)]
    log_scale = np.asarray(params[f"log_scale_{level}"], np.float64)
    scale_unit = SCALE_STEP / SCALE_UNITS
    unit = {
        last: np.concatenate([1 / (MEAN_UNITS * sizes[0]), np.full(len(log_scale), scale_unit)]) / ZERO_UNIT,
        f"{last}/bias": LARGEST_LOG_SCALE / ZERO_UNIT,
        "energy": np.full(len(log_scale), scale_unit),
        "energy/largest": np.full(config.level_channels[level], LATENT_LIMIT),
    }
    # The scale itself is the bias of its change.
    bias = np.array(network[last]["bias"], np.float64)
    bias[len(log_scale) :] += (log_scale - math.log(SCALE_MIN)) / ZERO_UNIT
    weights = {**network, last: {"kernel": network[last]["kernel"], "bias": bias}}
    if config.linear_path:
        gain = gain_of(params, level + 1)[:, None]
        weights["energy"] = np.asarray(params[f"energy_paths_{level - 1}"]["synthesis"]) / gain * UNIT / MEAN_UNITS
    entry = {"enter": 1 / (MEAN_UNITS * sizes[1])}
    for part, channels in enumerate(context.parts(config) if level == 1 else []):
        name, networks = f"context_{part}", params[f"contexts_{part}"]
        entry[f"{name}/enter"] = 1 / (MEAN_UNITS * sizes[0][: context.seen(config, part)])
        weights.update({f"{name}/{layer}": networks[layer] for layer in networks})
        if config.context == "spatial":
            kernel = networks["Seen"]["kernel"] * causal_mask(context.SIZE)
            weights[f"{name}/Seen"] = {**networks["Seen"], "kernel": kernel}
        means, scales = np.split(unit[last], 2)
        unit[f"{name}/Conv_1"] = np.concatenate([means[channels], scales[channels]])
        unit[f"{name}/Conv_1/bias"] = unit[f"{last}/bias"]
    return Calibrator(weights, entry, unit, ranges=ranges)


def at_rate(params: dict, weights: np.ndarray) -> dict:
    """A model of variable rate at one of them, as one of that rate. weights: (KNOTS,) by `rates.hats`."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64) if np.ndim(x) < 3 else np.asarray(x), params)
    found = {}
    for name, value in params.items():
        if name.startswith("log_") and np.ndim(value) == 2:
            value = weights @ value
        elif name.startswith("energy_paths_"):
            value = {**value, "bias": weights @ value["bias"]}
        elif name in ("analysis", "synthesis"):
            value = dict(value)
            for shift in [key for key in value if key.startswith("shift_")]:
                layer = f"Conv_{shift.removeprefix('shift_')}"
                value[layer] = {**value[layer], "bias": value[layer]["bias"] + weights @ value.pop(shift)}
        found[name] = value
    return found


def freeze(
    config: Config, rates: list[dict], top: np.ndarray, crops: np.ndarray, seen: Iterable[int] = (0,)
) -> dict[str, np.ndarray]:
    """The arrays encoder/..., decoder/level_1/..., decoder/synthesis/... and decoder/preview/... of a trained model.

    What differs between rates, which is little, has a first axis for them and a name that begins with rates/.

    rates: the parameters, or those of all rates that can be chosen, the highest last; top: means of p(z_L) in units,
    int32 (C or 1,); crops: float32 (N, P, P, 3) in [0, 1], a dozen of 256 pixels or more, to measure ranges on; seen:
    at which rates.
    """
    ranges: dict[str, dict] = collections.defaultdict(dict)
    transform = freeze_transform(config, rates, crops, tuple(seen))
    for index, z in transform.latents.items():
        measure(config, rates[index], top, z, ranges)
    each = [{**frozen_levels(config, p, ranges), **encoder_arrays(config, p)} for p in rates]
    return {**stacked(each), **transform.arrays}


def measure(config: Config, params: dict, top: np.ndarray, z: np.ndarray, ranges: dict) -> None:
    """Widens the ranges of the networks between levels to what z_1 of photos in bins, (N, h, w, C), needs."""
    encoder, latents = nested_encoder(config, params), [None, z]
    for level in range(1, config.L):
        margin = inference.margins(config, level)
        run = jax.jit(lambda x, n=level, m=margin: inference.level_analysis(encoder, config, n, x, m))
        latents.append(np.asarray(run(around(latents[-1], margin))))
    units = binned(latents[config.L], np.reshape(top, (1, 1, 1, -1)))
    for level in range(config.L - 1, 0, -1):
        above = around(units, level_margins(config, level)[0])
        calibrator = level_calibrator(config, params, level, ranges[f"level_{level}"])
        *network, streams = hyper(calibrator, config, above) if level == 1 else (
            *level_synthesis(calibrator, config, level, above), [])  # fmt: skip
        means = np.rint(level_parameters(config, level, *network)[0])
        if streams:
            see(calibrator, config, streams, binned(latents[level], means))
        units = binned(latents[level], means)


def see(calibrator: Calibrator, config: Config, streams: list, units: np.ndarray) -> None:
    """Sends what a context sees through its networks, where all of z_1 in units is decoded."""
    reach = context.REACH
    decoded = np.pad(units, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    cut = level_margins(config, 1)[1] + 1
    for part, stream in enumerate(streams):
        context.changes(calibrator, config, part, crop(stream, cut), decoded[..., : context.seen(config, part)])


def frozen_levels(config: Config, params: dict, ranges: dict) -> dict[str, np.ndarray]:
    """The decoder's networks between levels at one rate, from ranges that are known."""
    arrays = {}
    for level in range(1, config.L):
        freezer = Freezer(level_calibrator(config, params, level, ranges[f"level_{level}"]))
        if level == 1:
            *_, streams = hyper(freezer, config, None)
            for part, stream in enumerate(streams):
                context.changes(freezer, config, part, stream, None)
        else:
            level_synthesis(freezer, config, level, None)
        arrays.update({f"decoder/level_{level}/{name}": value for name, value in freezer.arrays.items()})
    return arrays

"""A trained model to a frozen one: ranges measured on photos, weights in int8, the rest integer scales and tables."""

import collections
import math
from collections.abc import Iterable

import jax
import numpy as np

from nlvc.config import Config
from nlvc.models import context, inference, lapped
from nlvc.models.calibration import Calibrator, Freezer
from nlvc.models.context import hyper
from nlvc.models.energy import UNIT
from nlvc.models.freeze_encoder import encoder_arrays, gain_of, last_convolution, nested_encoder, plain
from nlvc.models.frozen import (
    LATENT_LIMIT,
    MEAN_UNITS,
    PIXEL_UNITS,
    SCALE_UNITS,
    crop,
    level_margins,
    level_parameters,
    level_synthesis,
    reduction,
    synthesis,
    synthesis_margins,
)
from nlvc.models.layers import causal_mask, space_to_depth
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


def synthesis_calibrator(
    config: Config, params: dict, highest: np.ndarray, z: np.ndarray | None, ranges: dict | None = None
) -> Calibrator:
    """`frozen.synthesis` in float, for p(x | z_1).

    highest: gain (C,) of the highest rate, whose units the networks see; z: z_1 of photos in units, for its size, which
    matters without the linear path only.
    """
    gain = gain_of(params)
    network = flat(plain(params["synthesis"]))
    last = last_convolution({name: value for name, value in network.items() if "/" not in name})
    features = network[last]["bias"].shape[0]
    unit = {last: np.full(features, 1 / (255 * PIXEL_UNITS)) / (ZERO_UNIT if config.linear_path else 1)}
    weights = dict(network)
    if config.linear_path:
        basis = [np.asarray(params[f"{name}_basis"], np.float64) for name in ("analysis", "synthesis")]
        analysis, back = (b / math.sqrt(len(b)) for b in basis)
        weights["basis"] = back.T / (highest * MEAN_UNITS)[:, None]
        unit["gain"] = highest / gain
        unit["basis"] = np.full(len(back), 1 / (255 * PIXEL_UNITS))
        # Orthogonal, so what goes in comes out; odd parts are differences, twice as large as samples.
        weights["lap"] = lapped.turn(config.level_strides[0])
        unit["lap"] = np.ones(len(weights["lap"]))
        unit["lap/largest"], unit["lap/reach"] = np.full(len(weights["lap"]), LATENT_LIMIT), 1 << 15
        # No photo gives more by the linear path; the network beside it adds a little.
        reach = np.abs(lapped.functions(analysis, config.level_strides[0])).sum(axis=(1, 2, 3))
        most = MEAN_UNITS * (highest * 0.5 * reach * 1.25 + 8)
        unit["basis/largest"] = np.minimum(np.ceil(most), LATENT_LIMIT)
        # Whole grey levels go in, a sixteenth of these; the first convolution takes 4 for the range of a photo.
        usual = np.full(network["Conv_0"]["kernel"].shape[2], 16 * PIXEL_UNITS)
        real = 4 * usual / (255 * PIXEL_UNITS)
    else:
        # Activations of a sixteenth of what is usual, by channel, go in; the first convolution takes z / gain.
        usual = np.maximum(np.std(z, axis=(0, 1, 2)), MEAN_UNITS / 4)
        real = usual / (gain * MEAN_UNITS)
    first = weights["Conv_0"]
    weights["Conv_0"] = {"kernel": np.asarray(first["kernel"]) * real[:, None], "bias": first["bias"]}
    return Calibrator(weights, {"enter": 1 / usual}, unit, config.activation == "gdn", ranges, compensate=True)


def freeze_preview(config: Config, z: np.ndarray, crops: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `frozen.preview`: the linear map of z_1 in units that fits the reduced crops best."""
    reduced = np.asarray(space_to_depth(crops, reduction(config)), np.float64)
    reduced = reduced.reshape(*reduced.shape[:3], -1, 3).mean(axis=3) - 0.5
    wanted = np.asarray(space_to_depth(reduced, config.level_strides[0] // reduction(config)))
    z = z.reshape(-1, z.shape[-1]).astype(np.float64)
    # A ridge of a quarter of a bin: elements that are nearly always 0 stay out of it.
    square = z.T @ z + len(z) * (MEAN_UNITS / 4) ** 2 * np.eye(z.shape[1])
    weights = np.linalg.solve(square, z.T @ wanted.reshape(len(z), -1))
    most = np.minimum(2 * np.abs(z).max(axis=0) + MEAN_UNITS, LATENT_LIMIT)
    unit = {"map": np.full(weights.shape[1], 1 / (255 * PIXEL_UNITS)), "map/largest": most}
    freezer = Freezer(Calibrator({"map": weights}, {}, unit))
    freezer.linear("map", None)
    return freezer.arrays


def flat(params: dict, prefix: str = "") -> dict:
    """{"Residual_0": {"Conv_0": layer}} -> {"Residual_0/Conv_0": layer}."""
    found = {}
    for name, value in params.items():
        if "kernel" in value or "gamma" in value:
            found[prefix + name] = value
        else:
            found.update(flat(value, f"{prefix}{name}/"))
    return found


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
    highest, z = gain_of(rates[-1]), None
    for index in seen:
        z = measure(config, rates[index], highest, top, crops, ranges)
    each = [{**frozen_networks(config, p, highest, z, ranges), **encoder_arrays(config, p)} for p in rates]
    arrays = {f"decoder/preview/{name}": value for name, value in freeze_preview(config, z, crops).items()}
    for name, first in each[0].items():
        if all(np.array_equal(first, other[name]) for other in each[1:]):
            arrays[name] = first
        else:
            arrays[f"rates/{name}"] = np.stack([other[name] for other in each])
    return arrays


def measure(config: Config, params: dict, highest: np.ndarray, top: np.ndarray, crops: np.ndarray, ranges: dict):
    """Widens the ranges of every network to what crops need. Returns their z_1 in units."""
    encoder, latents = nested_encoder(config, params), [crops]
    for level in range(config.L):
        margin = inference.margins(config, level)
        if level:
            run = jax.jit(lambda x, n=level, m=margin: inference.level_analysis(encoder, config, n, x, m))
        else:
            sides = [side // config.level_strides[0] for side in crops.shape[1:3]]
            inside = tuple(lapped.borders(0, side, 1, side) for side in sides)
            run = jax.jit(lambda x, m=margin, i=inside: inference.analysis(encoder, config, x, m, i))
        latents.append(np.asarray(run(around(latents[-1], margin))))
    means, units = np.reshape(top, (1, 1, 1, -1)), None
    for level in range(config.L, 0, -1):
        if level < config.L:
            above = around(units, level_margins(config, level)[0])
            calibrator = level_calibrator(config, params, level, ranges[f"level_{level}"])
            *network, streams = hyper(calibrator, config, above) if level == 1 else (
                *level_synthesis(calibrator, config, level, above), [])  # fmt: skip
            means = np.rint(level_parameters(config, level, *network)[0])
            if streams:
                means = means + changed_means(calibrator, config, streams, binned(latents[level], means))
        units = binned(latents[level], means)
    margin = synthesis_margins(config)[0]
    z, inside = around(units, margin), [lapped.borders(0, side, margin, side) for side in units.shape[1:3]]
    synthesis(synthesis_calibrator(config, params, highest, z, ranges["synthesis"]), config, z, inside)
    return units


def binned(z: np.ndarray, means: np.ndarray) -> np.ndarray:
    """z in bins, and means in units -> the nearest bin's middle in units, int32."""
    units = np.rint(z - means / MEAN_UNITS) * MEAN_UNITS + means
    return np.clip(units, -LATENT_LIMIT, LATENT_LIMIT).astype(np.int32)


def changed_means(calibrator: Calibrator, config: Config, streams: list, units: np.ndarray) -> np.ndarray:
    """What a context adds to the means of z_1, in whole units, where all of z_1 in units is decoded."""
    reach = context.REACH
    decoded = np.pad(units, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    cut = level_margins(config, 1)[1] + 1
    found = [
        context.changes(calibrator, config, part, crop(stream, cut), decoded[..., : context.seen(config, part)])
        for part, stream in enumerate(streams)
    ]
    return np.rint(np.concatenate([np.split(np.asarray(x), 2, axis=-1)[0] for x in found], axis=-1))


def frozen_networks(config: Config, params: dict, highest: np.ndarray, z: np.ndarray, ranges: dict) -> dict:
    """The decoder's networks at one rate, from ranges that are known."""
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
    freezer = Freezer(synthesis_calibrator(config, params, highest, z, ranges["synthesis"]))
    synthesis(freezer, config, None)
    arrays.update({f"decoder/synthesis/{name}": value for name, value in freezer.arrays.items()})
    gain = {name: value for name, value in freezer.arrays.items() if name.startswith("gain/")}
    return {**arrays, **{f"decoder/preview/{name}": value for name, value in gain.items()}}


def around(x: np.ndarray, margin: int) -> np.ndarray:
    """(B, H, W, C) continued by its edge."""
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")

"""A trained transform to a frozen one: what all chains on it share, found once for all of them."""

import hashlib
import math
from typing import NamedTuple

import jax
import numpy as np

from nlvc.config import TRANSFORM_FIELDS, Config
from nlvc.models import inference, lapped
from nlvc.models.calibration import Calibrator, Freezer
from nlvc.models.freeze_encoder import flatten, gain_of, last_convolution, nested_encoder, plain
from nlvc.models.frozen import LATENT_LIMIT, MEAN_UNITS, PIXEL_UNITS, reduction, synthesis, synthesis_margins
from nlvc.models.layers import space_to_depth
from nlvc.models.nested import TRANSFORM
from nlvc.models.transforms import ZERO_UNIT


class FrozenTransform(NamedTuple):
    """arrays: decoder/synthesis/... and decoder/preview/..., as of `freeze`; latents: z_1 of the crops in bins, float32
    (N, h, w, C), by the index of each rate that was seen."""

    arrays: dict[str, np.ndarray]
    latents: dict[int, np.ndarray]


_newest: tuple[str, FrozenTransform] | None = None
"""Of one transform with its crops: many chains on it are frozen one after the other."""


def freeze_transform(config: Config, rates: list[dict], crops: np.ndarray, seen: tuple[int, ...]) -> FrozenTransform:
    """The transform's part of `freeze`; arguments as there."""
    global _newest
    key, known = _identity(config, rates, crops, seen), _newest
    if known is None or known[0] != key:
        # Not read again: packs on other devices freeze in threads of their own.
        _newest = known = key, _frozen(config, rates, crops, seen)
    return known[1]


def _frozen(config: Config, rates: list[dict], crops: np.ndarray, seen: tuple[int, ...]) -> FrozenTransform:
    highest, margin, ranges, latents = gain_of(rates[-1]), synthesis_margins(config)[0], {}, {}
    for index in seen:
        latents[index] = analysed(config, rates[index], crops)
        # About 0, and not about means, which only a chain knows: it makes no difference to ranges.
        units = binned(latents[index], 0)
        z, inside = around(units, margin), [lapped.borders(0, side, margin, side) for side in units.shape[1:3]]
        synthesis(synthesis_calibrator(config, rates[index], highest, units, ranges), config, z, inside)
    each = []
    for params in rates:
        freezer = Freezer(synthesis_calibrator(config, params, highest, units, ranges))
        synthesis(freezer, config, None)
        arrays = {f"decoder/synthesis/{name}": value for name, value in freezer.arrays.items()}
        gain = {name: value for name, value in freezer.arrays.items() if name.startswith("gain/")}
        each.append({**arrays, **{f"decoder/preview/{name}": value for name, value in gain.items()}})
    preview = {f"decoder/preview/{name}": value for name, value in freeze_preview(config, units, crops).items()}
    return FrozenTransform({**stacked(each), **preview}, latents)


def analysed(config: Config, params: dict, crops: np.ndarray) -> np.ndarray:
    """z_1 of crops, float32 (N, P, P, 3) in [0, 1], at one rate, in bins, (N, h, w, C)."""
    encoder, margin = nested_encoder(config, params), inference.margins(config, 0)
    sides = [side // config.level_strides[0] for side in crops.shape[1:3]]
    inside = tuple(lapped.borders(0, side, 1, side) for side in sides)
    run = jax.jit(lambda encoder, x: inference.analysis(encoder, config, x, margin, inside))
    return np.asarray(run(encoder, around(crops, margin)))


def stacked(each: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of all rates -> what is the same at all, and rates/NAME with a first axis for them."""
    arrays = {}
    for name, first in each[0].items():
        if all(np.array_equal(first, other[name]) for other in each[1:]):
            arrays[name] = first
        else:
            arrays[f"rates/{name}"] = np.stack([other[name] for other in each])
    return arrays


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


def binned(z: np.ndarray, means: np.ndarray) -> np.ndarray:
    """z in bins, and means in units -> the nearest bin's middle in units, int32."""
    units = np.rint(z - means / MEAN_UNITS) * MEAN_UNITS + means
    return np.clip(units, -LATENT_LIMIT, LATENT_LIMIT).astype(np.int32)


def around(x: np.ndarray, margin: int) -> np.ndarray:
    """(B, H, W, C) continued by its edge."""
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")


def _identity(config: Config, rates: list[dict], crops: np.ndarray, seen: tuple[int, ...]) -> str:
    """A digest of all that a frozen transform depends on."""
    fields = {field: getattr(config, field) for field in TRANSFORM_FIELDS}
    digest = hashlib.sha256(f"{fields} {config.level_strides[0]} {seen} {crops.shape}".encode())
    digest.update(np.ascontiguousarray(crops))
    for params in rates:
        for name, value in flatten({name: params[name] for name in TRANSFORM if name in params}).items():
            if params is rates[0] or np.ndim(value) == 1:  # rates differ in gains and biases alone
                digest.update(name.encode() + np.asarray(value).tobytes())
    return digest.hexdigest()

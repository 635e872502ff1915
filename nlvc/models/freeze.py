"""A trained model to a frozen one: ranges measured on photos, weights in int8, the rest integer scales and tables."""

import functools
import math

import jax
import numpy as np

from nlvc.config import Config
from nlvc.models import inference, integer
from nlvc.models.energy import UNIT
from nlvc.models.frozen import (
    LATENT_LIMIT,
    MEAN_UNITS,
    PIXEL_UNITS,
    ROOTS,
    SCALE_UNITS,
    STREAM_LIMIT,
    Exact,
    crop,
    level_margins,
    level_parameters,
    level_synthesis,
    synthesis,
    synthesis_margins,
)
from nlvc.models.layers import depth_to_space
from nlvc.models.nested import SCALE_MAX, SCALE_MIN, spread
from nlvc.models.transforms import ZERO_UNIT

SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / 63


GELU_FLOOR = -4.0
"""Below it GELU is 0 to within a ten-thousandth."""


class Calibrator:
    """The steps of a network in float, with a Flax network's weights, keeping the range of each pre-activation.

    NumPy, but for convolutions and GELU: JAX would compile every small step for every shape.

    weights: {"Conv_0": {"kernel": ..., "bias": ...}, ..., "energy": ...}; entry: what a unit of each latent is for the
    network, (C,); unit: what the outputs of `finish` and `linear` are counted in, by step, (C,).
    """

    def __init__(self, weights: dict, entry: np.ndarray, unit: dict[str, np.ndarray], gdn: bool = False):
        self.weights, self.entry, self.unit, self._gdn = weights, entry, unit, gdn
        self.ranges: dict[str, tuple[float, float]] = {}

    def enter(self, name, z):
        return np.asarray(z, np.float32) * row(self.entry)

    def convolve(self, name, x, block=1):
        x = self._convolve(name, x, block)
        self._note(name, x)
        return x

    def _note(self, name, x, linear=False):
        low, high = map(float, np.quantile(x, [1e-5, 1 - 1e-5]))
        if self._gdn and not linear:
            high = max(-low, high)
            low = -high * 128 / 127
        elif not linear:
            low = max(low, GELU_FLOOR)
        self.ranges[name] = low, max(high, low + 1e-3)

    def _convolve(self, name, x, block=1):
        kernel, bias = (np.asarray(self.weights[name][field], np.float32) for field in ("kernel", "bias"))
        return np.asarray(convolved(x, kernel, bias, block))

    def widen(self, name, stream, x, block=1):
        return self._stream(stream, self._convolve(name, x, block))

    def add(self, stream, x, y):
        return self._stream(stream, crop(x, 2) + y)

    def _stream(self, name, x):
        _, most = self.ranges.get(name, (0.0, 1e-3))
        self.ranges[name] = 0.0, max(most, float(np.abs(x).max()))
        return x

    def narrow(self, name, stream):
        self._note(name, stream, linear=name.endswith("leave"))
        return stream

    def normalise(self, name, x):
        beta, gamma = (np.asarray(self.weights[name][field], np.float32) for field in ("beta", "gamma"))
        power = np.dot(x * x, gamma) + row(beta)
        x = x * np.sqrt(power)
        self.ranges[name] = float(power.max()), float(np.quantile(np.abs(x), 1 - 1e-5))
        return x

    def activate(self, name, x):
        return np.asarray(function_of(name)(x))

    def finish(self, name, x):
        return self._convolve(name, x) / row(self.unit[name])

    def linear(self, name, z):
        return np.dot(np.asarray(z, np.float32), np.asarray(self.weights[name], np.float32)) / row(self.unit[name])


def function_of(name: str):
    """What a step's table computes: nothing where a stream only becomes narrow for the next convolution."""
    return (lambda x: x) if name.endswith("leave") else gelu


gelu = jax.jit(jax.nn.gelu)


@functools.partial(jax.jit, static_argnames="block")
def convolved(x: jax.Array, kernel: jax.Array, bias: jax.Array, block: int) -> jax.Array:
    """A float convolution without borders, after depth-to-space."""
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return depth_to_space(x + bias.reshape(1, 1, 1, -1), block)


def row(values) -> np.ndarray:
    """(C,) -> float32 (1, 1, 1, C)."""
    return np.asarray(values, np.float32).reshape(1, 1, 1, -1)


class Freezer:
    """The same steps once more: they move nothing but the scale and the zero of the activations, and write arrays."""

    def __init__(self, calibrator: Calibrator):
        self._float, self.arrays = calibrator, {}

    def _write(self, name: str, **arrays) -> None:
        self.arrays.update({f"{name}/{field}": np.asarray(value) for field, value in arrays.items()})

    def enter(self, name, _):
        """Activations of 1/16 of what is usual, so that eight times the usual fits."""
        step = 1 / 16
        self._write(name, **integer.scale(self._float.entry / step, 127)._asdict())
        return step, 0

    def _weights(self, name, incoming, unit, constant, reach):
        """Kernel, bias and Scale from activations (step, zero) to outputs in units, plus a constant in units."""
        step, zero = incoming
        kernel = np.asarray(self._float.weights[name]["kernel"], np.float64)
        bias = np.asarray(self._float.weights[name]["bias"], np.float64) / unit + constant
        ratio = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)) / 127 * step / unit, np.abs(bias) / 2.0**26 + 1e-9)
        kernel = np.rint(kernel * step / unit / ratio).astype(np.int8)
        bias = np.rint(bias / ratio) - zero * kernel.sum(axis=(0, 1, 2), dtype=np.int64)
        integer.check_accumulators(name, kernel, 128, bias)
        self._write(name, kernel=kernel, bias=bias.astype(np.int32), **integer.scale(ratio, reach)._asdict())

    def convolve(self, name, x, block=1):
        low, high = self._float.ranges[name]
        step = (high - low) / 255
        features = self._float.weights[name]["bias"].shape[0]
        self._weights(name, x, np.full(features, step), np.full(features, -low / step - 128), 128)
        return low, step

    def activate(self, name, x):
        low, step = x
        values = np.asarray(function_of(name)(low + step * np.arange(256)), np.float64)
        least, most = min(values.min(), 0.0), max(values.max(), 1e-3)
        step = (most - least) / 255
        zero = int(np.rint(-least / step)) - 128
        self._write(name, table=np.clip(np.rint(values / step) + zero, -128, 127).astype(np.int8))
        return step, zero

    def normalise(self, name, x):
        _, step = x
        most_power, most = self._float.ranges[name]
        beta, gamma = (np.asarray(self._float.weights[name][n], np.float64) for n in ("beta", "gamma"))
        # Powers in units of step^2 times the weights' own.
        ratio = np.maximum(np.maximum(gamma.max(axis=0) / 127, beta / step**2 / 2.0**26), 1e-12) * step**2
        weights, bias = np.rint(gamma * step**2 / ratio).astype(np.int8), np.rint(beta / ratio)
        integer.check_accumulators(name, weights, 127**2, bias)
        power_step = 1.25 * most_power / (ROOTS - 1)
        power = integer.scale(ratio / power_step, ROOTS)._asdict()
        roots = np.sqrt(power_step * np.arange(ROOTS))
        root_step = roots[-1] / 32767
        out = max(most, 1e-3) / 127
        self._write(f"{name}/power", **power)
        self._write(name, gamma=weights, beta=bias.astype(np.int32), root=np.rint(roots / root_step).astype(np.int16),
                    **integer.scale(np.array([step * root_step / out]), 127)._asdict())  # fmt: skip
        return out, 0

    def finish(self, name, x):
        unit = self._float.unit[name]
        self._weights(name, x, unit, np.zeros(len(unit)), 1 << 14)

    def widen(self, name, stream, x, block=1):
        # One unit for the whole stream, with room for twice of what was seen.
        unit = self._float.ranges[stream][1] * 2 / STREAM_LIMIT
        features = self._float.weights[name]["bias"].shape[0]
        self._weights(name, x, np.full(features, unit), np.zeros(features), STREAM_LIMIT)
        return unit

    def add(self, stream, x, y):
        return x

    def narrow(self, name, unit):
        low, high = self._float.ranges[name]
        step = (high - low) / 255
        ratio = np.array([unit / step])
        bias = np.rint((-low / step - 128) / ratio).astype(np.int32)
        self._write(name, bias=bias, **integer.scale(ratio, 128)._asdict())
        return low, step

    def linear(self, name, _):
        unit, largest = self._float.unit[name], self._float.unit[f"{name}/largest"]
        weights = np.asarray(self._float.weights[name], np.float64) / unit
        # As many bits as int16 has and as sums of the largest latents leave.
        sums, most = (np.abs(weights) * largest[:, None]).sum(axis=0), np.abs(weights).max(axis=0)
        ratio = np.maximum(np.maximum(sums / 2.0**29.9, most / 32000), 1e-12)
        weights = np.rint(weights / ratio).astype(np.int32)
        integer.check_accumulators(name, weights, largest)
        high, low = integer.limbs(weights)
        limbs = {"high": high, "low": low, "largest": largest.astype(np.int32)}
        self._write(name, **limbs, **integer.scale(ratio, 1 << 14)._asdict())


def freeze_level(config: Config, params: dict, level: int, above: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `frozen.level_synthesis` for p(z_level | z_{level+1}).

    above: z_{level+1} of photos in units, int32 (B, h, w, C), to measure ranges on.
    """
    network = params[f"level_syntheses_{level - 1}"]
    last = last_convolution(network)
    sizes = [np.asarray(spread(params[f"log_scale_{n}"]), np.float64).ravel() for n in (level, level + 1)]
    log_scale = np.asarray(params[f"log_scale_{level}"], np.float64)
    scale_unit = SCALE_STEP / SCALE_UNITS
    unit = {
        last: np.concatenate([1 / (MEAN_UNITS * sizes[0]), np.full(len(log_scale), scale_unit)]) / ZERO_UNIT,
        "energy": np.full(len(log_scale), scale_unit),
        "energy/largest": np.full(config.level_channels[level], LATENT_LIMIT),
    }
    # The scale itself is the bias of its change.
    bias = np.asarray(network[last]["bias"], np.float64)
    bias[len(log_scale) :] += (log_scale - math.log(SCALE_MIN)) / ZERO_UNIT
    weights = {**network, last: {"kernel": network[last]["kernel"], "bias": bias}}
    if config.linear_path:
        weights["energy"] = np.asarray(params[f"energy_paths_{level - 1}"]["synthesis"]) * UNIT / MEAN_UNITS
    calibrator = Calibrator(weights, 1 / (MEAN_UNITS * sizes[1]), unit)
    level_synthesis(calibrator, config, level, above)
    freezer = Freezer(calibrator)
    level_synthesis(freezer, config, level, None)
    return freezer.arrays


def freeze_synthesis(config: Config, params: dict, gain: float, z: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `frozen.synthesis` for p(x | z_1). z: z_1 of photos in units; gain: bins of z_1 for one."""
    network = flat(plain(params["synthesis"]))
    last = last_convolution({name: value for name, value in network.items() if "/" not in name})
    features = network[last]["bias"].shape[0]
    unit = {last: np.full(features, 1 / (255 * PIXEL_UNITS)) / (ZERO_UNIT if config.linear_path else 1)}
    weights = dict(network)
    if config.linear_path:
        basis = [np.asarray(params[f"{name}_basis"], np.float64) for name in ("analysis", "synthesis")]
        analysis, back = (b / math.sqrt(len(b)) for b in basis)
        weights["basis"] = back.T / (gain * MEAN_UNITS)
        unit["basis"] = np.full(len(back), 1 / (255 * PIXEL_UNITS))
        # No photo gives more by the linear path; the network beside it adds a little.
        most = MEAN_UNITS * (gain * 0.5 * np.abs(analysis).sum(axis=0) * 1.25 + 8)
        unit["basis/largest"] = np.minimum(np.ceil(most), LATENT_LIMIT)
    # Activations of a sixteenth of what is usual, by channel, go in; the first convolution takes gain * z.
    usual = np.maximum(np.std(z, axis=(0, 1, 2)), MEAN_UNITS / 4)
    first = weights["Conv_0"]
    scaled = {"kernel": np.asarray(first["kernel"]) * (usual / (gain * MEAN_UNITS))[:, None], "bias": first["bias"]}
    calibrator = Calibrator({**weights, "Conv_0": scaled}, 1 / usual, unit, config.activation == "gdn")
    synthesis(calibrator, config, z)
    freezer = Freezer(calibrator)
    synthesis(freezer, config, None)
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


def freeze(config: Config, params: dict, gain: float, top: np.ndarray, crops: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays encoder/..., decoder/level_1/... and decoder/synthesis/... of a trained model.

    gain: bins of z_1 for one; top: means of p(z_L) in units, int32 (C or 1,); crops: float32 (N, P, P, 3) in [0, 1], a
    dozen of 256 pixels or more, to measure ranges on.
    """
    encoder = encoder_weights(config, params, gain)
    latents, x = [], around(crops, inference.margins(config, 0))
    run = jax.jit(lambda x: inference.analysis(encoder, config, x, inference.margins(config, 0)))
    latents.append(np.asarray(run(x)))
    for level in range(1, config.L):
        margin = inference.margins(config, level)
        run = jax.jit(lambda z, n=level, m=margin: inference.level_analysis(encoder, config, n, z, m))
        latents.append(np.asarray(run(around(latents[-1], margin))))
    arrays = {f"encoder/{name}": value for name, value in flatten(encoder).items()}
    means, units = np.reshape(top, (1, 1, 1, -1)), None
    for level in range(config.L, 0, -1):
        if level < config.L:
            above = around(units, level_margins(config, level)[0])
            network = freeze_level(config, params, level, above)
            arrays.update({f"decoder/level_{level}/{name}": value for name, value in network.items()})
            means = level_means(config, level, network, above)
        z = latents[level - 1]
        units = np.clip(np.rint(z - means / MEAN_UNITS) * MEAN_UNITS + means, -LATENT_LIMIT, LATENT_LIMIT)
        units = units.astype(np.int32)
    network = freeze_synthesis(config, params, gain, around(units, synthesis_margins(config)[0]))
    arrays.update({f"decoder/synthesis/{name}": value for name, value in network.items()})
    return arrays


def level_means(config: Config, level: int, arrays: dict, above: np.ndarray) -> np.ndarray:
    """Means of p(z_level | z_{level+1}) in units, by the frozen network."""
    run = jax.jit(lambda z: level_parameters(config, level, *level_synthesis(Exact(arrays), config, level, z)))
    return np.asarray(run(above)[0])


def around(x: np.ndarray, margin: int) -> np.ndarray:
    """(B, H, W, C) continued by its edge."""
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")


def encoder_weights(config: Config, params: dict, gain: float) -> dict:
    """What `models.inference` takes: constants multiplied in, float32."""
    unit = ZERO_UNIT if config.linear_path else 1.0
    encoder = {"analysis": scaled_last(plain(params["analysis"]), gain * unit)}
    if config.linear_path:
        basis = np.asarray(params["analysis_basis"])
        encoder["basis"] = basis * np.float32(gain / math.sqrt(len(basis)))
    for level in range(1, config.L):
        network = scaled_last(plain(params[f"level_analyses_{level - 1}"]), unit)
        network["entry"] = 1 / np.asarray(spread(params[f"log_scale_{level}"])).ravel()
        if config.linear_path:
            path = params[f"energy_paths_{level - 1}"]
            network["energy"], network["energy_bias"] = UNIT * np.asarray(path["analysis"]), np.asarray(path["bias"])
        encoder[f"level_{level}"] = network
    return encoder


def plain(params: dict) -> dict:
    """The same nested dict with GDN's roots squared."""
    if "gamma_root" in params:
        return {"beta": np.asarray(params["beta_root"]) ** 2 + 1e-6, "gamma": np.asarray(params["gamma_root"]) ** 2}
    return {name: plain(value) if isinstance(value, dict) else np.asarray(value) for name, value in params.items()}


def scaled_last(network: dict, factor: float) -> dict:
    """The network with its last convolution times a factor."""
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

"""The two arithmetics that make a frozen network: one measures its ranges on photos, one writes its integers."""

import functools

import jax
import numpy as np

from nlvc.models import integer
from nlvc.models.compensate import compensated, moments
from nlvc.models.frozen import LATENT_LIMIT, ROOTS, STREAM_LIMIT, crop
from nlvc.models.lapped import across
from nlvc.models.layers import convolve_inside, depth_to_space

GELU_FLOOR = -4.0
"""Below it GELU is 0 to within a ten-thousandth."""


class Calibrator:
    """The steps of a network in float, with a Flax network's weights, keeping the range of each pre-activation.

    NumPy, but for convolutions and GELU: JAX would compile every small step for every shape.

    weights: {"Conv_0": {"kernel": ..., "bias": ...}, ..., "energy": ...}; entry: what a unit of each latent is for the
    network, by step, (C,); unit: what the outputs of `finish` and `linear` are counted in, by step, (C,); compensate:
    whether to keep the moments of what each convolution sees as well, so that the errors of its integers can cancel.
    """

    def __init__(
        self,
        weights: dict,
        entry: dict[str, np.ndarray],
        unit: dict[str, np.ndarray],
        gdn: bool = False,
        ranges: dict | None = None,
        compensate: bool = False,
    ):
        self.weights, self.entry, self.unit, self._gdn, self._compensate = weights, entry, unit, gdn, compensate
        # Shared by the calibrators of one network at several rates: (low, high) by step, and NAME/moments.
        self.ranges: dict[str, tuple[float, float] | np.ndarray] = {} if ranges is None else ranges

    def enter(self, name, z, layout=lambda z: z):
        return np.asarray(layout(z), np.float32) * row(self.entry[name])

    def rescale(self, name, z):
        return np.clip(np.asarray(z) * row(self.unit[name]), -LATENT_LIMIT, LATENT_LIMIT)

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
        least, most = self.ranges.get(name, (low, high))
        low, high = min(low, least), max(high, most)
        self.ranges[name] = low, max(high, low + 1e-3)

    def _convolve(self, name, x, block=1):
        kernel, bias = (np.asarray(self.weights[name][field], np.float32) for field in ("kernel", "bias"))
        if self._compensate:
            seen = f"{name}/moments"
            self.ranges[seen] = self.ranges.get(seen, 0.0) + moments(x, len(kernel))
        return np.asarray(convolved(x, kernel, bias, block))

    def widen(self, name, stream, x, block=1):
        return self._stream(stream, self._convolve(name, x, block))

    def add(self, stream, x, y, margin=2):
        return self._stream(stream, crop(x, margin) + y)

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
        seen = float(power.max()), float(np.quantile(np.abs(x), 1 - 1e-5))
        self.ranges[name] = tuple(map(max, seen, self.ranges.get(name, (0.0, 0.0))))
        return x

    def activate(self, name, x):
        return np.asarray(function_of(name)(x))

    def finish(self, name, x):
        return self._convolve(name, x) / row(self.unit[name])

    def linear(self, name, z):
        return np.dot(np.asarray(z, np.float32), np.asarray(self.weights[name], np.float32)) / row(self.unit[name])

    def lap(self, name, x, block, inside):
        x = depth_to_space(x, block)
        return across(x, block, lambda odd: np.dot(odd, np.float32(self.weights[name])), lambda x: 0.5 * x, inside)


def function_of(name: str):
    """What a step's table computes: nothing where a stream only becomes narrow for the next convolution."""
    return (lambda x: x) if name.endswith("leave") else gelu


gelu = jax.jit(jax.nn.gelu)


@functools.partial(jax.jit, static_argnames="block")
def convolved(x: jax.Array, kernel: jax.Array, bias: jax.Array, block: int) -> jax.Array:
    """A float convolution without borders, after depth-to-space."""
    return depth_to_space(convolve_inside(x, kernel, as_dot=False) + bias.reshape(1, 1, 1, -1), block)


def row(values) -> np.ndarray:
    """(C,) -> float32 (1, 1, 1, C)."""
    return np.asarray(values, np.float32).reshape(1, 1, 1, -1)


class Freezer:
    """The same steps once more: they move nothing but the scale and the zero of the activations, and write arrays."""

    def __init__(self, calibrator: Calibrator):
        self._float, self.arrays = calibrator, {}

    def _write(self, name: str, **arrays) -> None:
        self.arrays.update({f"{name}/{field}": np.asarray(value) for field, value in arrays.items()})

    def enter(self, name, _, layout=None):
        """Activations of 1/16 of what is usual, so that eight times the usual fits."""
        step = 1 / 16
        self._write(name, **integer.scale(self._float.entry[name] / step, 127)._asdict())
        return step, 0

    def _weights(self, name, incoming, unit, constant, reach, largest=0.0):
        """Kernel, bias and Scale from activations (step, zero) to outputs in units, plus a constant in units.

        largest: bound of |bias| at all rates, so that the kernel is the same at all of them.
        """
        step, zero = incoming
        kernel = np.asarray(self._float.weights[name]["kernel"], np.float64)
        bias = np.asarray(self._float.weights[name]["bias"], np.float64) + constant * unit
        # What one of the accumulator stands for: small enough for the kernel, large enough for the bias.
        one = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)) * step / 127, np.maximum(np.abs(bias), largest) / 2.0**26)
        one = np.maximum(one, 1e-9 * unit)
        kernel = self._rounded(name, kernel * step / one)
        bias = np.rint(bias / one) - zero * kernel.sum(axis=(0, 1, 2), dtype=np.int64)
        integer.check_accumulators(name, kernel, 128, bias)
        self._write(name, kernel=kernel, bias=bias.astype(np.int32), **integer.scale(one / unit, reach)._asdict())

    def _rounded(self, name, kernel):
        seen = self._float.ranges
        if f"{name}/moments" not in seen:
            return np.rint(kernel).astype(np.int8)
        # Once for all rates: their kernels are the same.
        key = f"{name}/rounded"
        if key not in seen or not np.array_equal(seen[key][0], kernel):
            seen[key] = kernel, compensated(kernel, seen[f"{name}/moments"])
        return seen[key][1]

    def rescale(self, name, _):
        self._write(name, **integer.scale(self._float.unit[name], LATENT_LIMIT)._asdict())

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
        self._weights(name, x, unit, np.zeros(len(unit)), 1 << 14, self._float.unit.get(f"{name}/bias", 0.0))

    def widen(self, name, stream, x, block=1):
        # One unit for the whole stream, with room for twice of what was seen.
        unit = self._float.ranges[stream][1] * 2 / STREAM_LIMIT
        features = self._float.weights[name]["bias"].shape[0]
        self._weights(name, x, np.full(features, unit), np.zeros(features), STREAM_LIMIT)
        return unit

    def add(self, stream, x, y, margin=2):
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
        self._write(name, **limbs, **integer.scale(ratio, self._float.unit.get(f"{name}/reach", 1 << 14))._asdict())

    def lap(self, name, x, block, inside):
        self.linear(name, None)

"""A frozen model, ready to code: the arrays of a file and the programs that are compiled of them."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nlvc import coding
from nlvc.config import Config
from nlvc.image_codec.rounding import distortion_weight, error_worth
from nlvc.image_codec.tiles import Box, Grid, around
from nlvc.models import context, frozen, inference, relaxed
from nlvc.models.weights import load_model

MAX_SYMBOL = 1 << 30
DEFAULT_QUALITY = 50
"""Of variable models: lambda 0.018."""


class CodecError(ValueError):
    """A picture that cannot be coded, or a file that cannot be decoded: one line that says why and what to do."""


# Weights are arguments, so that one program, compiled once and kept in JAX's cache, serves all models of a shape.


@functools.partial(jax.jit, static_argnums=(0, 1))
def analyse(config: Config, margin: int, weights: dict, pixels: jax.Array, inside: tuple) -> jax.Array:
    """uint8 pixels with a margin -> z_1 in bins."""
    return inference.analysis(weights, config, pixels.astype(jnp.float32) / 255, margin, inside)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def analyse_level(config: Config, level: int, margin: int, weights: dict, z: jax.Array) -> jax.Array:
    """z_level in bins with a margin -> z_{level+1}."""
    return inference.level_analysis(weights, config, level, z, margin)


@functools.partial(jax.jit, static_argnums=(0, 1))
def parameters(config: Config, level: int, weights: dict, lowest: jax.Array, index: jax.Array, above: jax.Array):
    """z_{level+1} in units with a margin -> (means in units, indices of tables) of z_level."""
    above = above.astype(jnp.int32)
    mean, scale = frozen.level_parameters(
        config, level, *frozen.level_synthesis(frozen.Exact(weights), config, level, above)
    )
    return mean, jnp.take(index, jnp.clip(scale - lowest[0], 0, len(index) - 1))


@functools.partial(jax.jit, static_argnums=0)
def hyper(config: Config, weights: dict, above: jax.Array):
    """z_2 in units with a margin -> what `causal.Told` has of z_1: (means, log scales, streams)."""
    *networks, streams = context.hyper(frozen.Exact(weights), config, above.astype(jnp.int32))
    cut = frozen.level_margins(config, 1)[1] + 1
    return *frozen.level_parameters(config, 1, *networks), [frozen.crop(stream, cut) for stream in streams]


@functools.partial(jax.jit, static_argnums=(0, 1))
def contextual(config: Config, part: int, weights: dict, lowest: jax.Array, index: jax.Array, decoded, *told):
    """z_1 in units around positions, and a part's (stream, means, log scales) there -> (means, indices of tables)."""
    stream, means, scales = told
    network = context.changes(frozen.Exact(weights), config, part, stream, decoded.astype(jnp.int32))
    mean, scale = jnp.split(network, 2, axis=-1)
    return means + mean, jnp.take(index, jnp.clip(scales + scale - lowest[0], 0, len(index) - 1))


@functools.partial(jax.jit, static_argnums=0)
def synthesise(config: Config, weights: dict, z: jax.Array, inside: tuple) -> jax.Array:
    """z_1 in units with a margin -> uint8 pixels."""
    return frozen.pixels(config, *frozen.synthesis(frozen.Exact(weights), config, z.astype(jnp.int32), inside))


@functools.partial(jax.jit, static_argnums=0)
def preview(config: Config, weights: dict, z: jax.Array) -> jax.Array:
    """z_1 in units -> uint8 pixels of a small picture."""
    return frozen.preview(frozen.Exact(weights), config, z.astype(jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def error(config: Config, with_gradient: bool, weights: dict, z: jax.Array, inside, pixels, counted):
    """(`relaxed.squared_error` of z_1 in units with a margin, its gradient by z_1 or None)."""
    value = lambda z: relaxed.squared_error(config, weights, z, inside, pixels, counted)  # noqa: E731
    z = z.astype(jnp.float32)
    return jax.value_and_grad(value)(z) if with_gradient else (value(z), None)


class Model:
    """Made by `load`, or from a config, the arrays of `freeze` and a fingerprint.

    quality: which of a variable model's rates; `at` gives the same model at another.
    """

    def __init__(self, config: Config, arrays: dict[str, np.ndarray], fingerprint: str, quality: int = DEFAULT_QUALITY):
        self.config, self.fingerprint, self.arrays = config, fingerprint, arrays
        self.quality = quality if config.rate == "variable" else None
        self._others = {self.quality: self}
        rates = {name: values[quality] for name, values in part(arrays, "rates").items()}
        arrays = {**arrays, **rates}
        self.distortion_weight = distortion_weight(config, self.quality, arrays["encoder/gain"])
        self._error_worth = error_worth(config, self.quality)
        encoder = inference.unpacked(part(arrays, "encoder"), part(arrays, "encoder_steps"))
        encoder, decoder = nested(jax.device_put(encoder)), jax.device_put(part(arrays, "decoder"))
        networks = {name: part(decoder, name) for name in {name.split("/")[0] for name in decoder}}
        lowest, index = (jnp.asarray(arrays[f"tables/{name}"]) for name in ("lowest", "index"))
        margins = self._margins = [inference.margins(config, level) for level in range(config.L)]
        self._analyse = lambda pixels, inside: analyse(config, margins[0], encoder, pixels, inside)
        self._analyse_level = lambda level, z: analyse_level(config, level, margins[level], encoder, z)
        self._parameters = lambda level, above: parameters(
            config, level, networks[f"level_{level}"], lowest, index, above
        )
        self._hyper = lambda above: hyper(config, networks["level_1"], above)
        self._contextual = lambda part, *known: contextual(
            config, part, networks["level_1"], lowest, index, *known
        )
        self._synthesise = lambda z, inside: synthesise(config, networks["synthesis"], z, inside)
        self._error = lambda gradient, *photo: error(config, gradient, networks["synthesis"], *photo)
        self._preview = lambda z: preview(config, networks["preview"], z)
        self._tables = {name: coding.Tables(**part(arrays, f"tables/{name}")) for name in ("top", "levels")}

    def at(self, quality: int) -> "Model":
        """A variable model at a quality from 0 to 100."""
        if quality not in self._others:
            other = Model(self.config, self.arrays, self.fingerprint, quality)
            self._others[quality] = other
        return self._others[quality]

    def __repr__(self) -> str:
        return f"Model(L={self.config.L}, prior={self.config.prior!r}, fingerprint={self.fingerprint!r})"

    def infer(self, grid: Grid, level: int, below: np.ndarray, box: Box) -> np.ndarray:
        """z_level in bins, float32 (h, w, C), in a box, from z_{level-1} of the whole picture (its pixels for z_1)."""
        stride, whole = self.config.level_strides[level - 1], grid.compiled(box, level)
        source = around(below, whole.finer(stride), self._margins[level - 1])
        z = self._analyse(source, grid.borders(whole, 1)) if level == 1 else self._analyse_level(level - 1, source)
        z = np.asarray(z)[0, : box.height, : box.width]
        if not np.all(np.abs(z) < MAX_SYMBOL):
            raise CodecError(f"z_{level} of this photo is not finite or too large; the model was not trained well")
        return z

    def conditional(self, grid: Grid, level: int, above: np.ndarray | None, box: Box):
        """(tables, indices, means in units) of z_level in a box, int32 (h, w, C), given all of z_{level+1} in units."""
        if level == self.config.L:
            shape = (box.height, box.width, self.config.level_channels[-1])
            indices, means = (self.arrays[f"top/{name}"] for name in ("indices", "means"))
            return self._tables["top"], np.broadcast_to(indices, shape), np.broadcast_to(means, shape)
        stride = self.config.level_strides[level]
        whole = grid.compiled(box.coarser(stride), level + 1)
        margin, _ = frozen.level_margins(self.config, level)
        means, indices = self._parameters(level, around(above, whole, margin))
        means, indices = (np.asarray(v)[0, : box.height, : box.width] for v in (means, indices))
        return self._tables["levels"], indices, means

    def hyper(self, grid: Grid, above: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """What all of z_2 in units says of a box of z_1, as compiled, in a model with a context: `causal.Told`."""
        whole = grid.compiled(box.coarser(self.config.level_strides[1]), 2)
        means, scales, streams = self._hyper(around(above, whole, frozen.level_margins(self.config, 1)[0]))
        return np.asarray(means)[0], np.asarray(scales)[0], [np.asarray(stream)[0] for stream in streams]

    def context(self, part: int, decoded: np.ndarray, stream: np.ndarray, means: np.ndarray, scales: np.ndarray):
        """(means in units, indices) (B, h, w, c) of a part of z_1's channels.

        By what is decoded, with `context.REACH` positions on each side, and by what z_2 says (`hyper`).
        """
        return tuple(map(np.asarray, self._contextual(part, decoded, stream, means, scales)))

    @property
    def tables(self) -> coding.Tables:
        """Of all levels but the deepest."""
        return self._tables["levels"]

    def synthesise(self, grid: Grid, z: np.ndarray, box: Box) -> np.ndarray:
        """uint8 (stride h, stride w, 3) of a box of z_1, given all of z_1 in units."""
        margin, _ = frozen.synthesis_margins(self.config)
        whole, stride = grid.compiled(box, 1), self.config.level_strides[0]
        pixels = self._synthesise(around(z, whole, margin), grid.borders(whole, margin))
        return np.asarray(pixels)[0, : stride * box.height, : stride * box.width]

    def error(self, grid: Grid, window: np.ndarray, pixels: np.ndarray, box: Box, with_gradient: bool = True):
        """(squared error of the pixels that a box of z_1 has a part in, its gradient by the bins of the box), in bits.

        Args:
          window: z_1 in units, the box as it is compiled and twice the margin of the synthesis around it; pixels: uint8
            (H, W, 3), the whole picture.

        Returns:
          A float, and float32 (h, w, C), or None for no gradient.
        """
        margin, _ = frozen.synthesis_margins(self.config)
        whole = grid.compiled(box, 1)
        seen = Box(whole.top - margin, whole.left - margin, whole.height + 2 * margin, whole.width + 2 * margin)
        place = seen.finer(self.config.level_strides[0])
        rows = np.arange(place.top, place.top + place.height)[:, None, None]
        columns = np.arange(place.left, place.left + place.width)[:, None]
        counted = (0 <= rows) & (rows < pixels.shape[0]) & (0 <= columns) & (columns < pixels.shape[1])
        photo = window, grid.borders(seen, margin), around(pixels, place, 0), counted
        value, gradient = self._error(with_gradient, *photo)
        if with_gradient:
            gradient = np.asarray(gradient)[0, 2 * margin :, 2 * margin :][: box.height, : box.width]
            gradient = self._error_worth * frozen.MEAN_UNITS * gradient
        return self._error_worth * float(value), gradient

    def preview(self, grid: Grid, z: np.ndarray, box: Box) -> np.ndarray:
        """`synthesise` in small: each side shorter by `frozen.reduction`."""
        stride = self.config.level_strides[0] // frozen.reduction(self.config)
        pixels = self._preview(around(z, grid.compiled(box, 1), 0))
        return np.asarray(pixels)[0, : stride * box.height, : stride * box.width]


def load(path: str | Path) -> Model:
    """The model in a file, or in the workdir of a run (its model.safetensors). Raises ModelError if there is none."""
    path = Path(path)
    return Model(*load_model(path / "model.safetensors" if path.is_dir() else path))


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with name/, without it."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{name}/")}


def nested(arrays: dict[str, np.ndarray]) -> dict:
    """{"a/b": x} -> {"a": {"b": x}}."""
    found: dict = {}
    for name, value in arrays.items():
        *folders, leaf = name.split("/")
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return found

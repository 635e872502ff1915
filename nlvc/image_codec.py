"""Photo <-> bytes: where the models meet the coding. One chain of levels, deepest first, drives both directions.

    x --infer--> z_1..z_L --bin--> symbols --codec--> message --bitstream--> bytes
    x_hat <--synthesise-- z_1 <-- ... <-- z_L <------ the same conditionals, deepest first <------ bytes

Between the networks and the coder stand integers only: for each element an index into the coder's tables and the mean
in fixed point; the symbol is round(z - mean). In this version the networks that give them run in float, so a file is
sure to decode where the same software runs on the same kind of machine as the one that wrote it.
"""

import functools
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlvc import coding
from nlvc.config import PREDEFINED_PRIORS, Config
from nlvc.data.planes import decode_alpha, encode_alpha, planes, to_pixels
from nlvc.models.nested import NestedLatentModel
from nlvc.models.weights import load_model

MEAN_UNITS = 16
"""Fixed-point means: steps of a sixteenth of a bin."""
MAX_PIXELS = 100_000_000
"""Larger photos are refused, in both directions: the networks take a photo whole."""
PADDED_TO = 64
"""Photos are continued to multiples of this inside the codec, so that few shapes have to be compiled."""
MAX_SYMBOL = 1 << 30

_LOG_SCALES = np.log(coding.SCALES)


class CodecError(ValueError):
    """A picture that cannot be coded, or a file that cannot be decoded: one line that says why and what to do."""


class LevelCodec(NamedTuple):
    """The codec of one level's symbols, int32 (h, w, C), with what made it.

    indices: which of `tables` codes each element; offset: the mean of each element in units of 1/MEAN_UNITS, int32.
    """

    push: Callable
    pop: Callable
    tables: coding.Tables
    indices: np.ndarray
    offset: np.ndarray


class Coded(NamedTuple):
    """A coded photo and what is known while coding it.

    data: the file; reconstruction: what `decompress` gives, bit for bit; level_bits: for z_1..z_L the bits spent at
    each position by the integer tables, float64 (h_l, w_l); estimated_bits: by the model's own densities, without
    tables and coder, for z_1..z_L.
    """

    data: bytes
    reconstruction: np.ndarray
    level_bits: tuple[np.ndarray, ...]
    estimated_bits: tuple[float, ...]


class Model:
    """A trained model, ready to code. Made by `load`, or from a config, parameters and a fingerprint."""

    def __init__(self, config: Config, params: dict, fingerprint: str):
        self.config, self.fingerprint = config, fingerprint
        self._params = {"params": jax.tree.map(jnp.asarray, params)}
        network = NestedLatentModel(config)
        self._infer = jax.jit(lambda params, x: network.apply(params, x, method="infer"))
        self._synthesise = jax.jit(lambda params, z: network.apply(params, z, method="synthesise"))

        def conditional(params, level, above, shape):
            return network.apply(params, level, above, shape, method="conditional")

        @functools.partial(jax.jit, static_argnums=(1, 3))
        def table_parameters(params, level, above, shape):
            return quantise_parameters(conditional(params, level, above, shape))

        @functools.partial(jax.jit, static_argnums=1)
        def bits(params, level, above, z):
            return conditional(params, level, above, z.shape[1:3]).coded_bits(z)

        self._table_parameters, self._bits = table_parameters, bits
        self._level_tables = coding.scale_tables(config.conditional)
        self._top = top_codec_parameters(config, conditional(self._params, config.L, None, None))

    def __repr__(self) -> str:
        return f"Model(L={self.config.L}, prior={self.config.prior!r}, fingerprint={self.fingerprint!r})"

    def latents(self, x: np.ndarray) -> list[np.ndarray]:
        """x float32 (H, W, 3) in [0, 1] -> z_1..z_L, unquantised, float32 (h_l, w_l, C_l)."""
        latents = [np.asarray(z[0]) for z in self._infer(self._params, x[None])]
        for level, z in enumerate(latents, start=1):
            if not np.all(np.abs(z) < MAX_SYMBOL):
                raise CodecError(f"z_{level} of this photo is not finite or too large; the model was not trained well")
        return latents

    def levels(self, height: int, width: int) -> Generator[LevelCodec, np.ndarray, None]:
        """The codec of the nested model, as a generator in decoding order: yields z_L's, receives its symbols, yields
        z_{L-1}'s, and so on to z_1. height, width: of the photo as `padded` gives it."""
        config, above = self.config, None
        shapes = config.level_shapes(height, width)
        for level in range(config.L, 0, -1):
            shape = shapes[level - 1]
            if level == config.L:
                tables, indices, offset = self._top
                full = (*shape, config.level_channels[-1])
                indices, offset = np.broadcast_to(indices, full), np.broadcast_to(offset, full)
            else:
                tables = self._level_tables
                parameters = self._table_parameters(self._params, level, above, shape)
                indices, offset = (np.asarray(p[0]) for p in parameters)
            symbols = yield LevelCodec(*coding.indexed(tables, indices), tables, indices, offset)
            above = dequantise(symbols, offset)[None]

    def synthesise(self, z: np.ndarray, height: int, width: int) -> np.ndarray:
        """z_1, float32 (h, w, C) -> float32 (height, width, 3), nominally in [0, 1]."""
        return np.asarray(self._synthesise(self._params, z[None])[0, :height, :width])

    def estimated_bits(self, latents: list[np.ndarray]) -> tuple[float, ...]:
        """Bits of quantised z_1..z_L by the model's densities, before tables and coder."""
        bits = []
        for level, z in enumerate(latents, start=1):
            above = latents[level][None] if level < self.config.L else None
            bits.append(float(np.sum(np.asarray(self._bits(self._params, level, above, z[None])), dtype=np.float64)))
        return tuple(bits)


def load(path: str | Path) -> Model:
    """The model in a file, or in the workdir of a run (its model.safetensors). Raises ModelError if there is none."""
    path = Path(path)
    return Model(*load_model(path / "model.safetensors" if path.is_dir() else path))


def compress(image, *, model: Model | str | Path | None = None, quality: float | None = None) -> bytes:
    """Codes a picture.

    Args:
      image: uint8 array (H, W), (H, W, 3) or (H, W, 4), or a Pillow image; grey, RGB, RGB with alpha (which is kept
        exactly). Palettes and CMYK are converted; more than 8 bits are refused.
      model: a `load`ed model, or where it lies.
      quality: for models of variable rate; a model of one rate takes None only.

    Returns:
      The bytes of an `.nlvc` file.

    Raises:
      ValueError (CodecError, PictureError, ModelError): for a picture or a model that cannot be used.
    """
    model = ready(model)
    if quality is not None:
        raise CodecError(f"this model has one rate (lambda {model.config.lmbda:g}): leave quality out")
    pixels, mode, alpha = planes(image)
    return encode(model, pixels, mode, alpha)[0]


def decompress(data: bytes, *, model: Model | str | Path | None = None) -> np.ndarray:
    """The picture in an `.nlvc` file: uint8 (H, W), (H, W, 3) or (H, W, 4).

    model: the one that wrote it, `load`ed or where it lies. Raises ValueError (BitstreamError, CodecError, ModelError,
    PictureError) for a file that is damaged, foreign, or of another model.
    """
    header, payload, alpha = coding.unpack(data)
    model = ready(model)
    check_size(header.width, header.height)
    if header.fingerprint != model.fingerprint:
        raise CodecError(
            f"this file needs the model with fingerprint {header.fingerprint}, not {model.fingerprint}: give that one"
        )
    if len(header.level_bytes) != model.config.L:
        raise CodecError(f"damaged file: it has {len(header.level_bytes)} levels, its model has {model.config.L}")
    message = coding.from_bytes(payload, header.lanes)

    def pop(codec: LevelCodec) -> np.ndarray:
        nonlocal message
        message, symbols = codec.pop(message)
        return symbols

    codecs, symbols = walk(model.levels(*padded_size(header.height, header.width)), pop)
    if coding.bits(message):
        raise CodecError("damaged file: something is left after its last symbol")
    latent = dequantise(symbols[0], codecs[0].offset)
    pixels = to_pixels(model.synthesise(latent, header.height, header.width), header.mode)
    if header.mode != "RGBA":
        return pixels
    return np.dstack([pixels, decode_alpha(alpha, header.width, header.height)])


def analyse(image, *, model: Model) -> Coded:
    """`compress` with its reconstruction and an account of the bits; for reports."""
    pixels, mode, alpha = planes(image)
    data, codecs, symbols = encode(model, pixels, mode, alpha)
    latents = [dequantise(s, c.offset) for c, s in zip(codecs, symbols, strict=True)]
    bits = [coding.ideal_bits(c.tables, s, c.indices).sum(-1) for c, s in zip(codecs, symbols, strict=True)]
    decoded = to_pixels(model.synthesise(latents[0], *pixels.shape[:2]), mode)
    if mode == "RGBA":
        decoded = np.dstack([decoded, alpha])
    return Coded(data, decoded, tuple(bits), model.estimated_bits(latents))


def walk(
    levels: Generator[LevelCodec, np.ndarray, None], visit: Callable[[LevelCodec], np.ndarray]
) -> tuple[list[LevelCodec], list[np.ndarray]]:
    """Down the chain: `visit` gives the symbols of each codec, binned or decoded. Returns both, z_1 first."""
    codecs, symbols = [next(levels)], []
    while True:
        symbols.append(visit(codecs[-1]))
        try:
            codecs.append(levels.send(symbols[-1]))
        except StopIteration:
            return codecs[::-1], symbols[::-1]


def encode(
    model: Model, pixels: np.ndarray, mode: str, alpha: np.ndarray | None
) -> tuple[bytes, list[LevelCodec], list[np.ndarray]]:
    """(file, codecs, symbols) of uint8 pixels (H, W, 3), the latter two for z_1..z_L."""
    height, width, _ = pixels.shape
    check_size(width, height)
    size = padded_size(height, width)
    x = np.pad(pixels, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")
    waiting = model.latents(x.astype(np.float32) / 255)
    codecs, symbols = walk(model.levels(*size), lambda codec: bin_latent(waiting.pop(), codec.offset))
    message, sizes = coding.empty_message(coding.LANES), [0.0]
    for codec, level in zip(codecs, symbols, strict=True):
        message = codec.push(message, level)
        sizes.append(coding.bits(message))
    payload = coding.to_bytes(message)
    # Each level's share of the payload; the coder's own few bytes are spread over them.
    ends = np.rint(np.array(sizes) / max(sizes[-1], 1e-9) * len(payload)).astype(int)
    ends[-1] = len(payload)
    alpha_code = encode_alpha(alpha) if mode == "RGBA" else b""
    header = coding.Header(
        version=1, width=width, height=height, mode=mode, fingerprint=model.fingerprint, lanes=coding.LANES,
        level_bytes=tuple(int(n) for n in np.diff(ends)), alpha_bytes=len(alpha_code),
    )  # fmt: skip
    return coding.pack(header, payload, alpha_code), codecs, symbols


def bin_latent(z: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Symbols round(z - mean), int32; ties to even."""
    return np.rint(z - offset.astype(np.float32) / MEAN_UNITS).astype(np.int32)


def dequantise(symbols: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """symbols + mean as float32, exact up to 2^20 bins."""
    return (symbols.astype(np.int64) * MEAN_UNITS + offset).astype(np.float32) / MEAN_UNITS


def quantise_parameters(prior) -> tuple[Array, Array]:
    """A conditional's (scale, mean) as integers: (index of the nearest of the coder's scales, offset), int32."""
    step = (_LOG_SCALES[-1] - _LOG_SCALES[0]) / (len(_LOG_SCALES) - 1)
    index = jnp.rint((jnp.log(prior.scale) - _LOG_SCALES[0]) / step)
    offset = jnp.rint(jnp.clip(prior.mean, -MAX_SYMBOL // MEAN_UNITS, MAX_SYMBOL // MEAN_UNITS) * MEAN_UNITS)
    return jnp.clip(index, 0, len(_LOG_SCALES) - 1).astype(jnp.int32), offset.astype(jnp.int32)


def top_codec_parameters(config: Config, prior) -> tuple[coding.Tables, np.ndarray, np.ndarray]:
    """(tables, indices (C or 1,), offsets (C or 1,)) of p(z_L): one table for all, or one for each learned channel."""
    channels = 1 if config.prior in PREDEFINED_PRIORS else config.level_channels[-1]

    def per_channel(values) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, np.float64), (1, 1, 1, channels)).reshape(channels)

    tail = 2.0**-18
    marks = np.array([0.5, tail, 1 - tail], np.float32).reshape(3, 1, 1, 1)
    median, low, high = map(per_channel, jax.jit(lambda prior, p: prior.quantile(p))(prior, marks))
    if not np.all(np.isfinite(median)):
        raise CodecError("p(z_L) of this model is not finite; it was not trained well")
    offsets = np.rint(np.clip(median * MEAN_UNITS, -MAX_SYMBOL, MAX_SYMBOL)).astype(np.int32)
    reach = 1 + np.maximum(np.abs(low - offsets / MEAN_UNITS), np.abs(high - offsets / MEAN_UNITS))
    half = int(np.ceil(min(reach.max(), coding.SCALES[-1] * 16)))
    symbols = np.arange(-half, half + 1)
    places = (symbols[:, None] + offsets / MEAN_UNITS).astype(np.float32)
    log_masses = jax.jit(lambda prior, z: prior.log_mass(z))(prior, places[None, None])
    masses = np.exp(np.asarray(log_masses, np.float64)[0, 0])
    # Float32 masses may sum to a little over 1.
    masses = np.broadcast_to(masses, places.shape) / np.maximum(masses.sum(0), 1.0)
    return coding.tables_from_masses([(-half, m) for m in masses.T]), np.arange(channels, dtype=np.int32), offsets


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The size that the networks see."""
    return math.ceil(height / PADDED_TO) * PADDED_TO, math.ceil(width / PADDED_TO) * PADDED_TO


def check_size(width: int, height: int) -> None:
    """Raises CodecError for a picture without pixels, or with more than MAX_PIXELS, or twice that in the networks."""
    if not 1 <= width * height <= MAX_PIXELS:
        raise CodecError(f"pictures of 1 to {MAX_PIXELS // 1_000_000} million pixels only, got {width}x{height}")
    if math.prod(padded_size(height, width)) > 2 * MAX_PIXELS:
        raise CodecError(f"a picture of {width}x{height} is too long and thin: cut it into shorter ones")


def ready(model: Model | str | Path | None) -> Model:
    """A model from what the caller gave. Raises CodecError for None."""
    if model is None:
        raise CodecError("no model: give model=PATH, the workdir or model.safetensors of a run of nlvc.train")
    if isinstance(model, Model):
        return model
    path = Path(model)
    file = path / "model.safetensors" if path.is_dir() else path
    return _loaded(path, file.stat().st_mtime_ns if file.exists() else 0)


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, _modified: int) -> Model:
    return load(path)

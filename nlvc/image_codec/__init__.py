"""Photo <-> bytes: where the models meet the coding.

    model.py      a frozen model and its programs          tiles.py     where tiles lie
    coder.py      pixels <-> streams, down the chain       freezing.py  a trained model to a frozen one
    choice.py     which of several models

Between the networks and the coder stand integers only, and the networks themselves are integer arithmetic
(`models.frozen`): a file decodes to the same bits on every machine.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nlvc import coding, zoo
from nlvc.data.decode import MAX_PIXELS
from nlvc.data.planes import decode_alpha, encode_alpha, planes
from nlvc.image_codec.choice import checked, choose, models_in
from nlvc.image_codec.coder import decode, encode, inferred, reconstruct
from nlvc.image_codec.model import CodecError, Model, load
from nlvc.image_codec.tiles import TILE, Box, Grid
from nlvc.models.frozen import reduction
from nlvc.models.rates import QUALITIES, lmbda_of, quality_of

__all__ = [
    "Coded", "CodecError", "Model", "analyse", "choose", "compress", "decompress", "infer", "load", "metadata_of",
    "models_in", "ready", "salvage",
]  # fmt: skip


class Coded(NamedTuple):
    """A coded photo and what is known while coding it.

    data: the file; reconstruction: what `decompress` gives, bit for bit; level_bits: for z_1..z_L the bits spent at
    each position by the integer tables, float64 (h_l, w_l).
    """

    data: bytes
    reconstruction: np.ndarray
    level_bits: tuple[np.ndarray, ...]


def compress(
    image,
    *,
    model: Model | str | Path | None = None,
    quality: float | None = None,
    effort: int = 0,
    latent: np.ndarray | None = None,
    metadata: dict[str, bytes] | None = None,
    max_pixels: int = MAX_PIXELS,
    verify: bool = False,
) -> bytes:
    """Codes a picture.

    Args:
      image: uint8 array (H, W), (H, W, 3) or (H, W, 4), or a Pillow image; grey, RGB, RGB with alpha (which is kept
        exactly). Palettes and CMYK are converted; more than 8 bits are refused.
      model: a `load`ed model, or where it lies: a file, the workdir of a run, or a folder of several; None: the one
        that comes with the package.
      quality: 0 to 100, for a model of variable rate, or to choose among several models the one of the nearest rate.
      effort: how often to look at what each symbol does to the picture, and to take better ones: the file becomes
        smaller at the same quality, and coding slower. 0: not at all; models that have no linear path never do.
      latent: z_1 to code instead of what the model infers, as `infer` gives it: of a better search, or of another
        model with the same transform.
      metadata: blocks that are carried along, by their name in `coding.METADATA`.
      max_pixels: larger pictures are refused.
      verify: decode the result and compare it with the encoder's own reconstruction.

    Returns:
      The bytes of an `.nlvc` file.

    Raises:
      ValueError (CodecError, PictureError, ModelError): for a picture or a model that cannot be used.
    """
    model = ready(model, quality=quality)
    data, reconstruction = _code(image, model, effort, metadata, max_pixels, latent=latent)
    if verify and not np.array_equal(decompress(data, model=model, max_pixels=max_pixels), reconstruction()):
        raise CodecError("the file does not decode to what was encoded; please report it")
    return data


def analyse(image, *, model: Model, effort: int = 0, max_pixels: int = MAX_PIXELS) -> Coded:
    """`compress` with its reconstruction and an account of the bits; for reports."""
    bits: dict[int, np.ndarray] = {}

    def observe(level, box, tables, symbols, indices):
        box.of(bits[level])[:] = coding.ideal_bits(tables, symbols, indices).sum(-1)

    def prepare(grid):
        bits.update({level: np.zeros(grid.shape(level)) for level in range(1, model.config.L + 1)})
        return observe

    data, reconstruction = _code(image, model, effort, None, max_pixels, prepare)
    return Coded(data, reconstruction(), tuple(bits[level] for level in sorted(bits)))


def infer(image, *, model: Model, quality: float | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """z_1 of a picture in bins, float32 (h, w, C); arguments and errors as of `compress`."""
    model, (pixels, *_) = ready(model, quality=quality), planes(image)
    height, width = pixels.shape[:2]
    check_size(width, height, max_pixels)
    return inferred(model, grid_of(model, height, width, max_pixels=max_pixels), 1, pixels)


def _code(image, model, effort, metadata, max_pixels, prepare=None, latent=None):
    """(the file, a function that gives the encoder's own reconstruction)."""
    pixels, mode, alpha = planes(image)
    height, width = pixels.shape[:2]
    check_size(width, height, max_pixels)
    grid = grid_of(model, height, width, max_pixels=max_pixels)
    expected = (*grid.shape(1), model.config.channels)
    if latent is not None and (latent.shape, latent.dtype) != (expected, np.float32):
        raise CodecError(f"z_1 of this picture must be float32 {expected}, not {latent.dtype} {latent.shape}")
    streams, z = encode(model, grid, pixels, prepare and prepare(grid), effort, latent)
    chunks = dict(metadata or {})
    if model.quality is not None:
        chunks[coding.RATE] = bytes([model.quality])
    if mode == "RGBA":
        chunks[coding.ALPHA] = encode_alpha(alpha)
    header = coding.Header(
        coding.MINOR, width, height, mode, model.fingerprint, coding.LANES, model.config.L, grid.tile
    )

    def reconstruction():
        decoded = in_mode(reconstruct(model, grid, z, Box(0, 0, height, width)), mode)
        return np.dstack([decoded, alpha]) if mode == "RGBA" else decoded

    return coding.pack(header, streams, chunks), reconstruction


def decompress(
    data: bytes,
    *,
    model: Model | str | Path | None = None,
    region: tuple[int, int, int, int] | None = None,
    preview: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """The picture in an `.nlvc` file: uint8 (H, W), (H, W, 3) or (H, W, 4).

    Args:
      model: the one that wrote it, `load`ed or where it lies; of several in a folder the file names its own; None:
        one that comes with the package.
      region: (x, y, width, height) in pixels; only the tiles that it needs are decoded.
      preview: a quick look, smaller by `models.frozen.PREVIEW` in each direction: all levels are decoded, which is
        little, but one linear map takes the place of the synthesis.
      max_pixels: larger pictures are refused.

    Raises:
      ValueError (BitstreamError, CodecError, ModelError, PictureError): for a file that is damaged, foreign, or of
        another model.
    """
    return _decode(data, model, region, preview, max_pixels, None)


def salvage(
    data: bytes,
    *,
    model: Model | str | Path | None = None,
    region: tuple[int, int, int, int] | None = None,
    preview: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, list[str]]:
    """`decompress` for a damaged file: (picture, what is lost of it, in words). Raises if nothing can be had."""
    lost: set[tuple[int, int]] = set()
    pixels = _decode(data, model, region, preview, max_pixels, lost)
    words = [f"z_{level} of tile {tile}" for level, tile in sorted(lost, reverse=True)]
    return pixels, words + [f"chunk {name}" for name in coding.unpack(data).damaged]


def metadata_of(data: bytes) -> dict[str, bytes]:
    """The blocks that a file carries along, by their name in `coding.METADATA`; the damaged ones left out."""
    return {name: block for name, block in coding.unpack(data).chunks.items() if name in coding.METADATA}


def _decode(data, model, region, preview, max_pixels, lost) -> np.ndarray:
    file = coding.unpack(data)
    header = file.header
    check_size(header.width, header.height, max_pixels)
    model = ready(model, fingerprint=header.fingerprint)
    if header.fingerprint != model.fingerprint:
        raise CodecError(
            f"this file needs the model with fingerprint {header.fingerprint}, not {model.fingerprint}: give that one"
        )
    if model.config.rate == "variable":
        rate = file.chunks.get(coding.RATE, b"")
        if len(rate) != 1 or rate[0] >= QUALITIES:
            raise CodecError("damaged file: it does not say at which quality its model was used")
        model = model.at(rate[0])
    grid = grid_of(model, header.height, header.width, header.tile, max_pixels)
    if header.levels != model.config.L or header.lanes != coding.LANES:
        raise CodecError("damaged file: its levels or lanes are not those of its model")
    if region is None and lost is None:
        file.check()
    box = boxed(region, header.width, header.height)
    pixels = in_mode(decode(model, grid, file.stream, box, preview=preview, lost=lost), header.mode)
    if header.mode != "RGBA":
        return pixels
    if coding.ALPHA not in file.chunks:
        if lost is not None:
            return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        raise CodecError("damaged file: its alpha plane does not match its checksum")
    alpha = decode_alpha(file.chunks[coding.ALPHA], header.width, header.height)
    if preview:
        by = reduction(model.config)
        alpha, box = np.asarray(Image.fromarray(alpha).reduce(by)), box.coarser(by)
    return np.dstack([pixels, box.of(alpha)])


def grid_of(
    model: Model, height: int, width: int, tile: int | None = None, max_pixels: int = MAX_PIXELS
) -> Grid:
    """The grid of a picture. Raises CodecError for tiles that do not fit the model, and for endless strips."""
    whole = Grid(model.config, height, width, 1).stride(model.config.L)
    usual = -(-TILE // whole) * whole
    tile = tile or usual
    if tile % whole:
        raise CodecError(f"damaged file: tiles of {tile} pixels do not fit a model of stride {whole}")
    grid = Grid(model.config, height, width, tile)
    if math.prod(grid.shape(0)) > 2 * max(height * width, max_pixels, TILE * TILE):
        raise CodecError(f"a picture of {width}x{height} is too long and thin for a model of stride {whole}")
    # Networks see a whole tile at a time: what memory that needs must not be for the file to say.
    seen, most = (math.prod(g.compiled(g.box(0, 0), 0)[2:]) for g in (grid, Grid(model.config, usual, usual, usual)))
    if seen > most:
        raise CodecError(f"damaged file: tiles of {tile} pixels are larger than any that are written")
    return grid


def boxed(region: tuple[int, int, int, int] | None, width: int, height: int) -> Box:
    """A region (x, y, width, height) as a Box. Raises CodecError if it is not inside the picture."""
    if region is None:
        return Box(0, 0, height, width)
    x, y, w, h = region
    if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
        raise CodecError(f"the region {x},{y},{w},{h} is not inside the picture of {width}x{height}")
    return Box(y, x, h, w)


def in_mode(pixels: np.ndarray, mode: str) -> np.ndarray:
    """uint8 (H, W, 3), or (H, W) for mode L: the mean of the channels, halves up."""
    return ((pixels.sum(axis=2, dtype=np.uint16) * 2 + 3) // 6).astype(np.uint8) if mode == "L" else pixels


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises CodecError for a picture without pixels, or with too many."""
    if not 1 <= width * height <= max_pixels:
        raise CodecError(f"pictures of 1 to {max_pixels:,} pixels only, got {width}x{height}; see --max-pixels")


def ready(
    model: Model | str | Path | None,
    *,
    quality: float | None = None,
    lmbda: float | None = None,
    fingerprint: str | None = None,
) -> Model:
    """A model from what the caller gave: itself, or of those at a path the one that `choose` chooses, at its rate.

    None: the one that comes with the package, or of all that ever did the one that wrote the file.
    """
    if model is None:
        model = zoo.DEFAULT if fingerprint is None else zoo.FOLDER
    if quality is not None:
        lmbda = lmbda_of(checked(quality))
    if not isinstance(model, Model):
        path = choose(Path(model), lmbda=lmbda, fingerprint=fingerprint)
        model = _loaded(path, path.stat().st_mtime_ns if path.exists() else 0)
    elif lmbda is not None and model.config.rate == "fixed":
        raise CodecError(f"this model has one rate (lambda {model.config.lmbda:g}): leave quality out")
    return model.at(quality_of(lmbda)) if lmbda is not None and model.config.rate == "variable" else model


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, _modified: int) -> Model:
    return load(path)

"""Codecs of every kind behind one record, and the measuring of one real file."""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlvc import __version__, zoo
from nlvc.coding import unpack
from nlvc.config import LAMBDAS
from nlvc.evaluation.metrics import bits_per_pixel, ms_ssim, psnr
from nlvc.evaluation.points import Point
from nlvc.image_codec import compress, decompress, load, models_in, ready
from nlvc.models.rates import quality_of


class Codec(NamedTuple):
    """Something that turns photos into files and back.

    Attributes:
      name: what reports call it.
      settings: at which it is measured, lowest rate first; (nan,) for a codec of one rate.
      encode: (uint8 (H, W, 3), setting) -> the whole file.
      decode: a file -> uint8 (H, W, 3).
      note: library, version and settings, for reports.
      levels: a file -> bytes of z_1, z_2, ... in it; None for codecs without levels.
    """

    name: str
    settings: tuple[float, ...]
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    note: str
    levels: Callable[[bytes], tuple[int, ...]] | None = None


class CodecFailure(RuntimeError):
    """A codec that did not code a photo, or gave back something else: one line that says which, where and how."""


def measure(codec: Codec, photo: np.ndarray, setting: float, *, photo_set: str = "", name: str = "") -> Point:
    """One photo to one file and back again.

    Args:
      photo: uint8 (H, W, 3).
      setting: what the codec is steered by, not necessarily among its `settings`.
      photo_set, name: what the point calls the set and the photo.

    Returns:
      A Point without its memory. The times are of this one call: a model's first photo of a size also pays for
      compiling its programs.

    Raises:
      CodecFailure: whatever went wrong in the codec.
    """
    height, width = photo.shape[:2]
    try:
        start = time.perf_counter()
        data = codec.encode(photo, setting)
        encoded = time.perf_counter()
        decoded = codec.decode(data)
        ended = time.perf_counter()
        quality, similarity = psnr(photo, decoded), ms_ssim(photo, decoded)
        levels = codec.levels(data) if codec.levels else ()
    except Exception as error:  # libraries raise what they like
        why = " ".join(str(error).split()) or type(error).__name__
        raise CodecFailure(f"{codec.name} at setting {setting:g} failed on {name or 'a photo'}: {why}") from error
    return Point(
        photo_set, name, width, height, codec.name, float(setting), len(data), bits_per_pixel(len(data), height, width),
        quality, similarity, encoded - start, ended - encoded,
        level_bpp=tuple(bits_per_pixel(size, height, width) for size in levels),
    )  # fmt: skip


def model_codec(path: str | Path | None = None, settings: Sequence[float] | None = None) -> Codec:
    """A trained model, or several of one rate each, as a codec.

    Args:
      path: the file of a model, the folder of its run, or a folder of several; None: the one that comes with the
        package. The codec is called after it.
      settings: qualities 0 to 100 of a model of variable rate, by default those of the field's eight lambdas. A model
        of one rate has the setting nan; several of one rate each are the points of one curve, by their lambdas.

    Raises:
      ValueError: no model, or one that cannot be read; settings for models of one rate; several models of which two
        have one lambda, or one has variable rate.
    """
    path = Path(zoo.DEFAULT if path is None else path)
    models = sorted(map(load, models_in(path)), key=lambda model: model.config.lmbda)
    first, lambdas = models[0], [model.config.lmbda for model in models]
    rates = {model.config.rate for model in models}
    if settings is not None and rates != {"variable"}:
        raise ValueError(f"{path}: only a model of variable rate has settings to choose")
    if len(models) > 1:
        if "variable" in rates or len(set(lambdas)) < len(models):
            raise ValueError(f"{path}: several models make a curve only if each has one rate, by its own lambda")
        settings, model_at = lambdas, dict(zip(lambdas, models, strict=True)).__getitem__
    elif rates == {"variable"}:
        settings = sorted(map(quality_of, LAMBDAS) if settings is None else settings)

        def model_at(quality):
            return ready(first, quality=quality)
    else:
        settings, model_at = [math.nan], lambda _: first

    by_fingerprint = {model.fingerprint: model for model in models}
    return Codec(
        _name(path),
        tuple(map(float, settings)),
        lambda photo, setting: compress(photo, model=model_at(setting)),
        lambda data: decompress(data, model=by_fingerprint[unpack(data).header.fingerprint]),
        f"nlvc {__version__}, L={first.config.L}, {first.config.prior} prior, {first.config.rate} rate",
        lambda data: tuple(map(sum, unpack(data).sizes)),
    )


def _name(path: Path) -> str:
    """What a model is called: its file's stem, or the folder of its run, whose file is always model.safetensors."""
    path = Path(os.path.abspath(path))
    return path.name if path.is_dir() else path.parent.name if path.stem == "model" else path.stem

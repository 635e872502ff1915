"""The measuring of one real file, and models as codecs."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlvc import __version__, zoo
from nlvc.coding import unpack
from nlvc.config import LAMBDAS
from nlvc.evaluation.metrics import bits_per_pixel, ms_ssim, psnr
from nlvc.evaluation.points import Point
from nlvc.evaluation.trip import Codec, Trip, failure, round_trip
from nlvc.image_codec import compress, decompress, load, models_in, ready
from nlvc.models.rates import quality_of


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
    return judge(codec, photo, setting, round_trip(codec, photo, setting, name), photo_set=photo_set, name=name)


def judge(
    codec: Codec, photo: np.ndarray, setting: float, trip: Trip, *, photo_set: str = "", name: str = ""
) -> Point:
    """What a round trip, made here or in another process, was worth. As `measure`."""
    height, width = photo.shape[:2]
    try:
        quality, similarity = psnr(photo, trip.decoded), ms_ssim(photo, trip.decoded)
        levels = codec.levels(trip.data) if codec.levels else ()
    except Exception as error:  # what came back may be anything
        raise failure(codec.name, setting, name, error) from error
    size = len(trip.data)
    return Point(
        photo_set, name, width, height, codec.name, float(setting), size, bits_per_pixel(size, height, width),
        quality, similarity, trip.encode_s, trip.decode_s,
        level_bpp=tuple(bits_per_pixel(part, height, width) for part in levels),
    )  # fmt: skip


def model_codec(
    path: str | Path | None = None, settings: Sequence[float] | None = None, effort: int = 0
) -> Codec:
    """A trained model, or several of one rate each, as a codec.

    Args:
      path: the file of a model, the folder of its run, or a folder of several; None: the one that comes with the
        package. The codec is called after it.
      settings: qualities 0 to 100 of a model of variable rate, by default those of the field's eight lambdas. A model
        of one rate has the setting nan; several of one rate each are the points of one curve, by their lambdas.
      effort: as of `nlvc.compress`.

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
        lambda photo, setting: compress(photo, model=model_at(setting), effort=effort),
        lambda data: decompress(data, model=by_fingerprint[unpack(data).header.fingerprint]),
        f"nlvc {__version__}, L={first.config.L}, {first.config.prior} prior, {first.config.rate} rate, "
        f"fingerprint {', '.join(by_fingerprint)}, effort {effort}",
        lambda data: tuple(map(sum, unpack(data).sizes)),
    )


def _name(path: Path) -> str:
    """What a model is called: its file's stem, or the folder of its run, whose file is always model.safetensors."""
    path = Path(os.path.abspath(path))
    return path.name if path.is_dir() else path.parent.name if path.stem == "model" else path.stem

"""One record for each photo, codec and setting that was measured: kept in files, and put together into curves."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlvc.files import write_csv, write_whole


class Point(NamedTuple):
    """One photo through one codec at one setting.

    Attributes:
      set: name of the set of photos.
      photo: path below the set's folder, with slashes.
      width, height: pixels.
      codec: its name.
      setting: quality, or whatever else steers the codec; nan for one that has a single rate.
      bytes: size of the whole file.
      bpp: bits per pixel of the file, 8 * bytes / (width * height).
      psnr: dB on 8-bit RGB; inf for an exact copy.
      ms_ssim: in [0, 1]; nan for sides under 161 pixels.
      encode_s, decode_s: wall seconds, pixels to bytes and back.
      peak_mib: largest resident memory of the process that did it, MiB; nan where it was not measured.
      level_bpp: bits per pixel of z_1, z_2, ... in the file; empty for codecs without levels.
    """

    set: str
    photo: str
    width: int
    height: int
    codec: str
    setting: float
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float
    encode_s: float
    decode_s: float
    peak_mib: float = math.nan
    level_bpp: tuple[float, ...] = ()


_COLUMNS = {name: kind for name, kind in Point.__annotations__.items() if name != "level_bpp"}


def write_points(path: Path, points: Sequence[Point]) -> None:
    """Points unrounded as CSV, or as parquet for a name that ends so, whole or not at all.

    One column for each field, and bpp_1, bpp_2, ... for the levels, empty where a codec has fewer.

    Raises:
      ValueError: another suffix, or parquet without pyarrow.
    """
    levels = max((len(point.level_bpp) for point in points), default=0)
    records = []
    for point in points:
        record = point._asdict()
        of_levels = [*record.pop("level_bpp"), *[None] * (levels - len(point.level_bpp))]
        records.append({**record, **{f"bpp_{level}": bpp for level, bpp in enumerate(of_levels, start=1)}})
    if _is_parquet(path):
        pyarrow, parquet = _pyarrow()
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(records), buffer)
        write_whole(path, buffer.getvalue())
    else:
        write_csv(path, records)


def read_points(path: Path) -> list[Point]:
    """What `write_points` wrote, in its order.

    Raises:
      OSError: the file cannot be read.
      ValueError: another suffix, parquet without pyarrow, or a file that does not hold points.
    """
    parquet = _pyarrow()[1] if _is_parquet(path) else None
    data = path.read_bytes()
    try:
        if parquet:
            records = parquet.read_table(io.BytesIO(data)).to_pylist()
        else:
            records = csv.DictReader(io.StringIO(data.decode(), newline=""))
        return [_point(record) for record in records]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: not a file of points ({type(error).__name__}: {error})") from error


class Curves(NamedTuple):
    """One codec on the photos of one set, at the settings that all of these photos have, lowest mean rate first.

    Attributes:
      photos: P names; settings: S settings.
      bpp, psnr, ms_ssim, encode_s, decode_s, peak_mib: float64 (P, S), as of `Point`.
      level_bpp: float64 (P, S, L), 0 for levels that a model does not have.
    """

    photos: tuple[str, ...]
    settings: tuple[float, ...]
    bpp: np.ndarray
    psnr: np.ndarray
    ms_ssim: np.ndarray
    encode_s: np.ndarray
    decode_s: np.ndarray
    peak_mib: np.ndarray
    level_bpp: np.ndarray


class Curve(NamedTuple):
    """Plain means of `Curves` over its photos: arrays (S,), level_bpp (S, L).

    MS-SSIM and memory are means over the photos that have them, nan where none has.
    """

    photos: tuple[str, ...]
    settings: tuple[float, ...]
    bpp: np.ndarray
    psnr: np.ndarray
    ms_ssim: np.ndarray
    encode_s: np.ndarray
    decode_s: np.ndarray
    peak_mib: np.ndarray
    level_bpp: np.ndarray


def photo_curves(points: Iterable[Point]) -> dict[tuple[str, str], Curves]:
    """(set, codec) -> its `Curves`, in order of first appearance.

    A photo that lacks a setting, because a codec failed there, is left out at all settings of the codec, so that a
    curve never joins means over different photos: compare `photos` with what was asked for.

    Raises:
      ValueError: a photo is there twice at one setting, or no photo has all settings.
    """
    groups: dict[tuple[str, str], dict[float | None, dict[str, Point]]] = {}
    for point in points:
        # nan is not equal to itself, and would be a setting of its own every time.
        setting = None if math.isnan(point.setting) else point.setting
        at_setting = groups.setdefault((point.set, point.codec), {}).setdefault(setting, {})
        if point.photo in at_setting:
            raise ValueError(f"{point.codec} has {point.photo} of {point.set} twice at setting {point.setting:g}")
        at_setting[point.photo] = point
    return {key: _curves(*key, list(group.values())) for key, group in groups.items()}


def mean_curves(points: Iterable[Point]) -> dict[tuple[str, str], Curve]:
    """(set, codec) -> means over photos at each setting. Raises ValueError as `photo_curves`."""
    return {key: _means(curves) for key, curves in photo_curves(points).items()}


def _curves(photo_set: str, codec: str, settings: list[dict[str, Point]]) -> Curves:
    photos = [photo for photo in settings[0] if all(photo in points for points in settings)]
    if not photos:
        raise ValueError(f"{codec} has no photo of {photo_set} that was coded at each of its {len(settings)} settings")
    settings = sorted(settings, key=lambda points: sum(points[photo].bpp for photo in photos))
    grid = [[points[photo] for points in settings] for photo in photos]
    levels = max(len(point.level_bpp) for row in grid for point in row)
    fields = Curves._fields[2:-1]
    return Curves(
        tuple(photos),
        tuple(point.setting for point in grid[0]),
        *(np.array([[getattr(point, field) for point in row] for row in grid], float) for field in fields),
        np.array([[[*p.level_bpp, *[0.0] * (levels - len(p.level_bpp))] for p in row] for row in grid], float),
    )


def _means(curves: Curves) -> Curve:
    means = {name: getattr(curves, name).mean(axis=0) for name in Curves._fields[2:]}
    for name in ("ms_ssim", "peak_mib"):
        values = getattr(curves, name)
        known = np.count_nonzero(~np.isnan(values), axis=0)
        means[name] = np.where(known, np.nansum(values, axis=0) / np.maximum(known, 1), math.nan)
    return Curve(curves.photos, curves.settings, **means)


def _point(record: dict) -> Point:
    levels = []
    while (bpp := record.get(f"bpp_{len(levels) + 1}")) not in (None, ""):
        levels.append(float(bpp))
    return Point(**{name: kind(record[name]) for name, kind in _COLUMNS.items()}, level_bpp=tuple(levels))


def _is_parquet(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: points are kept as .csv or .parquet")
    return path.suffix == ".parquet"


def _pyarrow():
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("parquet needs pyarrow (pip install pyarrow); .csv needs nothing") from error
    return pyarrow, parquet

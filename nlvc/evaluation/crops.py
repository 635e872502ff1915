"""Small pieces of photos as each codec gives them back at about one rate, to be looked at side by side."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nlvc.evaluation.measuring import Contender, PhotoSet
from nlvc.evaluation.points import Point
from nlvc.evaluation.trip import CodecFailure
from nlvc.evaluation.worker import Worker
from nlvc.files import write_whole

SIDE = 160
"""Pixels of a crop, or as many as the photo has."""
_PHOTOS = 3


class Crop(NamedTuple):
    """What a codec makes of the place: a PNG, and the point of the photo's whole file."""

    codec: str
    png: bytes
    point: Point


class Showcase(NamedTuple):
    """One photo's most detailed place, and every codec's crop of it."""

    set: str
    photo: str
    original: bytes
    crops: tuple[Crop, ...]


def shown(photos: PhotoSet) -> list[str]:
    """The photos of a set that are looked at: up to three, spread over it."""
    count = len(photos.names)
    parts = min(_PHOTOS, count)
    return [photos.names[count * (2 * part + 1) // (2 * parts)] for part in range(parts)]


def showcases(
    sets: Sequence[PhotoSet],
    contenders: Sequence[Contender],
    find: Callable[[str, str, str, float], Point | None],
    bpp: float,
    folder: Path,
) -> Iterator[Showcase | str]:
    """Codes the `shown` photos again at the setting nearest to a rate, and keeps the crops in a folder.

    What is in the folder is not coded again; a photo that a codec has no point of is left out.

    Args:
      find: (set, photo, codec, setting) -> its point.
      bpp: the rate, compared by its logarithm.

    Yields:
      Showcases, and before them a line for whatever failed.
    """
    places, crops = {}, {}
    for photos in sets:
        for name in shown(photos):
            try:
                photo = photos.read(name)
            except ValueError:
                continue  # told while it was measured
            place = most_detailed(photo)
            places[photos.name, name] = (photos, place, _png(photo, place))
    for codec, make in contenders:
        with Worker(codec.name, make) as worker:
            for (set_name, name), (photos, place, _) in places.items():
                points = [find(set_name, name, codec.name, setting) for setting in codec.settings]
                if not (points := [point for point in points if point]):
                    continue
                point = min(points, key=lambda point: abs(math.log(point.bpp / bpp)))
                path = folder / set_name / name / f"{codec.name}-{point.setting:g}.png"
                try:
                    if not path.exists():
                        answer = worker.code(photos.read(name), point.setting, name)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_whole(path, _png(answer.trip.decoded, place))
                    crops.setdefault((set_name, name), []).append(Crop(codec.name, path.read_bytes(), point))
                except CodecFailure as error:
                    yield str(error)
    for (set_name, name), (_, _, original) in places.items():
        yield Showcase(set_name, name, original, tuple(crops.get((set_name, name), ())))


def most_detailed(photo: np.ndarray) -> tuple[int, int]:
    """(row, column) of the SIDE x SIDE part of uint8 (H, W, 3) with the largest mean gradient, in steps of 16."""
    luma = photo.mean(axis=2, dtype=np.float32)
    gradient = np.zeros_like(luma)
    gradient[:, 1:] += abs(np.diff(luma, axis=1))
    gradient[1:] += abs(np.diff(luma, axis=0))
    sums = np.pad(gradient.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(SIDE, side) for side in luma.shape)
    top = np.arange(0, luma.shape[0] - height + 1, 16)[:, None]
    left = np.arange(0, luma.shape[1] - width + 1, 16)
    inside = sums[top + height, left + width] - sums[top, left + width] - sums[top + height, left] + sums[top, left]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    return int(16 * row), int(16 * column)


def _png(photo: np.ndarray, place: tuple[int, int]) -> bytes:
    row, column = place
    buffer = io.BytesIO()
    Image.fromarray(photo[row : row + SIDE, column : column + SIDE]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

"""Every photo through every codec at every setting, once: what is measured is kept in a folder and not repeated."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlvc.data import SUFFIXES
from nlvc.data.decode import decode
from nlvc.evaluation.codecs import judge
from nlvc.evaluation.points import Point, read_points, write_points
from nlvc.evaluation.trip import Codec, CodecFailure
from nlvc.evaluation.worker import Worker
from nlvc.files import remove_leftovers, write_whole
from nlvc.folders import files_in

_SAVE_EVERY = 2.0
"""Seconds between two savings of the points, at least."""


class Contender(NamedTuple):
    """A codec that is measured, and what makes the same one in another process (see `Worker`)."""

    codec: Codec
    make: Callable[[], Codec]


class PhotoSet(NamedTuple):
    """A folder of photos under a name; `names` are paths below it, with slashes."""

    name: str
    folder: Path
    names: tuple[str, ...]

    def read(self, name: str) -> np.ndarray:
        """A photo, uint8 (H, W, 3). Raises ValueError (UnreadablePhotoError) if it cannot be read."""
        return decode(self.folder / name)


def photo_set(name: str, folder: Path) -> PhotoSet:
    """All photos of a folder and below. Raises ValueError if there are none."""
    names = tuple(path.relative_to(folder).as_posix() for path in files_in(folder, SUFFIXES))
    if not names:
        raise ValueError(f"{folder}: no photos in this folder" if folder.is_dir() else f"{folder}: no such folder")
    return PhotoSet(name, folder, names)


class Store:
    """The points in a folder, beside codecs.json, which says of each codec's name what it was measured as.

    Args:
      path: points.csv or points.parquet; written at once, so that a folder or a format that cannot be is told early.
      codecs: those that points will be added of.

    Raises:
      ValueError: the folder has points of another codec of the same name; a file that does not hold points.
      OSError: the files cannot be read or written.
    """

    def __init__(self, path: Path, codecs: Sequence[Codec]):
        self._path, self._saved = path, time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        points = read_points(path) if path.exists() else []
        self._points = {_key(point.set, point.photo, point.codec, point.setting): point for point in points}
        measured, notes = {point.codec for point in points}, path.parent / "codecs.json"
        known = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
        for codec in codecs:
            if codec.name in measured and known.get(codec.name) != codec.note:
                was = known.get(codec.name, "unknown")
                raise ValueError(f"{path} has points of another {codec.name} ({was}; now {codec.note}): "
                                 "give another --out")  # fmt: skip
        known.update((codec.name, codec.note) for codec in codecs)
        write_whole(notes, (json.dumps(known, indent=1) + "\n").encode())
        self.save()

    def find(self, photo_set: str, photo: str, codec: str, setting: float) -> Point | None:
        """The point that is there already."""
        return self._points.get(_key(photo_set, photo, codec, setting))

    def add(self, point: Point) -> None:
        """Takes a point in, and saves now and then."""
        self._points[_key(point.set, point.photo, point.codec, point.setting)] = point
        if time.monotonic() - self._saved >= _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Writes all points, whole or not at all."""
        write_points(self._path, list(self._points.values()))
        self._saved = time.monotonic()


def jobs(sets: Sequence[PhotoSet], contenders: Sequence[Contender]) -> int:
    """How many steps `measure_all` takes."""
    return sum(len(photos.names) for photos in sets) * sum(len(contender.codec.settings) for contender in contenders)


def measure_all(
    sets: Sequence[PhotoSet], contenders: Sequence[Contender], store: Store
) -> Iterator[Point | str | None]:
    """Measures what the store lacks, codec by codec, and adds it.

    Yields once a photo, codec and setting: its Point, a line that says why there is none, or None where that line has
    been yielded before, for a photo that cannot be read. The store is saved whatever ends this.
    """
    unreadable: set[tuple[str, str]] = set()
    try:
        for contender in contenders:
            codec = contender.codec
            with Worker(codec.name, contender.make) as worker:
                for photos in sets:
                    for name in photos.names:
                        yield from _of_photo(codec, worker, photos, name, store, unreadable)
    finally:
        store.save()


def _of_photo(codec, worker, photos, name, store, unreadable) -> Iterator[Point | str | None]:
    """`measure_all` for one codec and photo, which is read only if need be."""
    photo = None
    for setting in codec.settings:
        if found := store.find(photos.name, name, codec.name, setting):
            yield found
            continue
        if (photos.name, name) in unreadable:
            yield None
            continue
        try:
            photo = photos.read(name) if photo is None else photo
            answer = worker.code(photo, setting, name)
            point = judge(codec, photo, setting, answer.trip, photo_set=photos.name, name=name)
        except CodecFailure as error:
            yield str(error)
        except ValueError as error:
            unreadable.add((photos.name, name))
            yield f"{photos.folder / name}: {error}"
        else:
            point = point._replace(peak_mib=answer.peak_mib)
            store.add(point)
            yield point


def _key(photo_set: str, photo: str, codec: str, setting: float) -> tuple[str, str, str, str]:
    # As text, because nan is not equal to itself.
    return photo_set, photo, codec, repr(float(setting))

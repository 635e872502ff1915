"""A packed data set: photos in tiles, in ArrayRecord files, so that a crop reads and decodes only what it touches.

    OUT/packed_photos.json           the index: names and sizes of the photos, the shards, what could not be read
    OUT/photos-00000.array_record    records in the order of the index; of one photo row by row, then column by column

    record    {"photo": "a/b.jpg", "height": H, "width": W, "row": r, "column": c} as JSON, a line feed, and the tile
    tile      pixels [256 r, 256 r + 256) x [256 c, 256 c + 256) as far as the photo goes, RGB, as WebP without loss

`nlvc.data.packing` writes it; benchmarks/packing.py compares this form with others.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlvc.data.decode import UnreadablePhotoError, decode

INDEX = "packed_photos.json"
FORMAT, VERSION = "nlvc packed photos", 1
TILE = 256
OPEN_SHARDS = 256


class DamagedPackError(ValueError):
    """A packed data set that is not what was written: one line that names the file."""


class Shard(NamedTuple):
    """One ArrayRecord file: its name in the folder, its records, and its size in bytes."""

    name: str
    records: int
    bytes: int


class Index(NamedTuple):
    """What is in the packed data set `root`; `sizes` is int64 (len(names), 2), height and width of each photo."""

    root: Path
    names: Sequence[str]
    sizes: np.ndarray
    shards: Sequence[Shard]
    skipped: Sequence[tuple[str, str]]

    def to_json(self) -> str:
        """The text of the index file."""
        photos = [[name, *size] for name, size in zip(self.names, self.sizes.tolist(), strict=True)]
        return json.dumps({"format": FORMAT, "version": VERSION, "tile": TILE, "shards": self.shards,
                           "photos": photos, "skipped": self.skipped})  # fmt: skip


def read_index(root: Path) -> Index:
    """The index of a packed data set, whose shards are checked to be there in full length.

    Raises DamagedPackError, and ValueError for a data set of a later version.
    """
    path = root / INDEX
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError("not an index of packed photos")
        version, tile = content["version"], content["tile"]
        names = [name for name, _, _ in content["photos"]]
        sizes = np.array([size for _, *size in content["photos"]], np.int64).reshape(-1, 2)
        shards = [Shard(*shard) for shard in content["shards"]]
        skipped = [(name, reason) for name, reason in content["skipped"]]
        tiles = int(np.prod(tiles_of(sizes), axis=1).sum())
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedPackError(f"{path}: damaged: not the index of a packed data set; pack the photos again") from error
    if (version, tile) != (VERSION, TILE):
        raise ValueError(f"{path}: packed by another version of nlvc; pack the photos again")
    if tiles != sum(shard.records for shard in shards) or len(set(names)) < len(names) or np.any(sizes < 1):
        raise DamagedPackError(f"{path}: damaged: it contradicts itself; pack the photos again")
    for shard in shards:
        try:
            found = (root / shard.name).stat().st_size
        except FileNotFoundError as error:
            raise DamagedPackError(f"{root / shard.name}: missing; pack the photos again") from error
        if found != shard.bytes:
            raise DamagedPackError(
                f"{root / shard.name}: damaged: {found} bytes instead of {shard.bytes}; pack the photos again"
            )
    return Index(root, names, sizes, shards, skipped)


def tiles_of(size: np.ndarray | tuple[int, int]) -> np.ndarray:
    """Rows and columns of tiles for (H, W); also for many sizes, int (N, 2), at once."""
    return -(-np.asarray(size) // TILE)


def record_header(name: str, size: tuple[int, int], row: int, column: int) -> bytes:
    """What stands before a tile: which one of which photo it is, so that a shard of another data set is found out."""
    height, width = map(int, size)
    fields = {"photo": name, "height": height, "width": width, "row": row, "column": column}
    return json.dumps(fields).encode() + b"\n"


class PackedPhotos(Sequence):
    """Photos of a packed data set, of any size: `photos[i]` -> uint8 (H, W, 3); `sliceable(i)` for a part of one.

    Nothing is kept in memory but names and sizes: what is read often, the system keeps. Threads may share it, and it
    can be sent to other processes.

    `names`, `areas`, `skipped`  as in `Photos`
    `sizes`                      int64 (len, 2), height and width of each photo

    Raises ValueError without photos; reading raises `DamagedPackError`.
    """

    random_access = True

    def __init__(self, index: Index, numbers: Sequence[int], *, skipped: Sequence[tuple[str, str]], title: str):
        if not numbers:
            raise ValueError(f"no readable photo in {title} ({len(skipped)} unreadable)")
        firsts = np.cumsum([0, *np.prod(tiles_of(index.sizes), axis=1)])
        self.names = tuple(index.names[number] for number in numbers)
        self.sizes = index.sizes[numbers]
        self.areas = np.prod(self.sizes, axis=1).astype(np.float64)
        self.skipped = list(skipped)
        self._firsts, self._title = firsts[numbers], title
        self._shards = [index.root / shard.name for shard in index.shards]
        self._shard_ends = np.cumsum([shard.records for shard in index.shards])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.sliceable(index)[:, :]

    def __repr__(self) -> str:
        return f"PackedPhotos({self._title}: {len(self)} photos, {len(self.skipped)} skipped)"

    def sliceable(self, index: int) -> "PackedPhoto":
        """Photo `index` as something with a `shape` that is read where it is sliced. Raises IndexError."""
        index = range(len(self))[index]
        return PackedPhoto(self, index, (*self.sizes[index].tolist(), 3))

    def tile(self, index: int, row: int, column: int) -> np.ndarray:
        """One tile of photo `index`, uint8 (h, w, 3), h and w at most `TILE`."""
        height, width = self.sizes[index].tolist()
        record = int(self._firsts[index]) + row * -(-width // TILE) + column
        number = int(np.searchsorted(self._shard_ends, record, side="right"))
        path = self._shards[number]
        position = record - (int(self._shard_ends[number - 1]) if number else 0)
        header = record_header(self.names[index], (height, width), row, column)
        expected = min(TILE, height - row * TILE), min(TILE, width - column * TILE), 3
        try:
            status = os.stat(path)
            data = _reader(os.fspath(path), status.st_ino, status.st_mtime_ns).read([position])[0]
            if not data.startswith(header):
                raise UnreadablePhotoError("it belongs to another data set")
            pixels = decode(data[len(header) :])
            if pixels.shape != expected:
                raise UnreadablePhotoError(f"a tile of shape {pixels.shape} instead of {expected}")
        except (RuntimeError, IndexError, UnreadablePhotoError, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            where = f"record {position}, of photo {self.names[index]}"
            raise DamagedPackError(f"{path}: damaged: {where}: {reason}; pack the photos again") from error
        return pixels


@dataclass(frozen=True)
class PackedPhoto:
    """One photo of `PackedPhotos`: `photo[rows, columns]` -> uint8 (h, w, 3), for slices without a step."""

    photos: PackedPhotos
    index: int
    shape: tuple[int, int, int]

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (part.indices(side) for part, side in zip(place, self.shape, strict=False))
        pixels = np.empty((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
        for row in range(top // TILE, -(-bottom // TILE)):
            for column in range(left // TILE, -(-right // TILE)):
                tile = self.photos.tile(self.index, row, column)
                y, x = row * TILE - top, column * TILE - left
                part = tile[max(-y, 0) : bottom - top - y, max(-x, 0) : right - left - x]
                y, x = max(y, 0), max(x, 0)
                pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
        return pixels


@lru_cache(maxsize=OPEN_SHARDS)
def _reader(path: str, inode: int, changed: int):
    """A shard opened for reading. Only so many at a time: a process may hold about a thousand files.

    `inode` and `changed` tell a file from another one that has taken its place.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    # Without read-ahead, because the next crop lies elsewhere.
    return ArrayRecordReader(path, "readahead_buffer_size:0", file_reader_buffer_size=1 << 15)

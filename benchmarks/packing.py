"""What a packed photo is best stored as: the time to cut a crop and the bytes on disk of several forms.

    python benchmarks/packing.py FOLDER [--photos 3] [--crops 60] [--patch 256]

Every form holds the same photos in one ArrayRecord file, read through the file system's cache. Time is processor time,
the mean over crops at random places of random photos, reading included, and also given as a ratio to raw tiles of 512
pixels; size is in bytes a pixel of the photos, and as a ratio to their files. "overlap" repeats the borders of tiles,
so that a crop touches fewer of them. `nlvc pack` writes the form marked with a star.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from nlvc.data import SUFFIXES
from nlvc.data.decode import decode
from nlvc.data.packed import TILE
from nlvc.folders import files_in


class Coding(NamedTuple):
    """How one tile becomes bytes, and what ArrayRecord does with these bytes."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, tuple], np.ndarray]
    record: str = "uncompressed"


def saved(pixels: np.ndarray, format_: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, **options)
    return file.getvalue()


def differences(pixels: np.ndarray) -> bytes:
    """Each sample less its left neighbour, then red and blue less green: what is left is small, and zstd finds it."""
    residual = np.diff(pixels, axis=1, prepend=np.uint8(0))
    residual[..., ::2] -= residual[..., 1:2]
    return np.moveaxis(residual, -1, 0).tobytes()


def summed(data: bytes, shape: tuple) -> np.ndarray:
    red, green, blue = np.frombuffer(data, np.uint8).reshape(3, *shape[:2])
    planes = np.stack([red + green, green, blue + green], axis=-1)
    return np.cumsum(planes, axis=1, dtype=np.uint8)


def from_bytes(data: bytes, shape: tuple) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(shape)


def from_picture(data: bytes, _) -> np.ndarray:
    return decode(data)


RAW = Coding(np.ndarray.tobytes, from_bytes)
CODINGS = {
    "raw": RAW,
    "raw, zstd": RAW._replace(record="zstd:1"),
    "differences, zstd": Coding(differences, summed, "zstd:1"),
    "PNG": Coding(lambda pixels: saved(pixels, "PNG", compress_level=4), from_picture),
    "WebP, lossless": Coding(lambda pixels: saved(pixels, "WEBP", lossless=True, method=1, quality=25), from_picture),
}
WHOLE = 1 << 30
FORMS = [("PNG", WHOLE, 0), ("WebP, lossless", WHOLE, 0), ("raw", WHOLE, 0)]
FORMS += [(name, 512, 0) for name in CODINGS] + [(name, 256, 0) for name in CODINGS]
FORMS += [("raw", 512, 255), ("WebP, lossless", 512, 255)]
CHOSEN = ("WebP, lossless", TILE, 0)


class Tiles(NamedTuple):
    """Where the tiles of a photo lie along one side: first pixel of each, at distance `step`, `tile` pixels wide."""

    side: int
    tile: int
    step: int

    @property
    def count(self) -> int:
        return 1 + max(0, -(-(self.side - self.tile) // self.step))

    def touched(self, start: int, length: int) -> range:
        """The fewest tiles that hold `length` pixels from `start` on."""
        first = min(start // self.step, self.count - 1)
        last = first
        while last * self.step + self.tile < start + length:
            last += 1
        return range(first, last + 1)


def measure(photos: list[np.ndarray], form: tuple, crops: list, patch: int, folder: str) -> tuple[float, float]:
    """(seconds a crop, bytes on disk) of the photos in that form."""
    name, tile, overlap = form
    coding, path = CODINGS[name], Path(folder, "photos.array_record")
    grids, firsts, number = [], [], 0
    writer = ArrayRecordWriter(str(path), f"group_size:1,{coding.record}")
    for photo in photos:
        rows, columns = (Tiles(side, tile, tile - overlap) for side in photo.shape[:2])
        grids.append((rows, columns))
        firsts.append(number)
        for row in range(rows.count):
            for column in range(columns.count):
                top, left = row * rows.step, column * columns.step
                pixels = photo[top : top + tile, left : left + tile]
                writer.write(coding.encode(np.ascontiguousarray(pixels)))
                number += 1
    writer.close()
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")

    def cut(index: int, top: int, left: int) -> np.ndarray:
        rows, columns = grids[index]
        across, pieces = columns.touched(left, patch), []
        for row in rows.touched(top, patch):
            record = firsts[index] + row * columns.count + across.start
            height = min(tile, rows.side - row * rows.step)
            strip = []
            for column, data in zip(across, reader.read(range(record, record + len(across))), strict=True):
                pixels = coding.decode(data, (height, min(tile, columns.side - column * columns.step), 3))
                begin = 0 if column == across.start else overlap
                strip.append(pixels[0 if not pieces else overlap :, begin:])
            pieces.append(np.concatenate(strip, axis=1) if len(strip) > 1 else strip[0])
        whole = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        y, x = top - rows.touched(top, patch).start * rows.step, left - across.start * columns.step
        return whole[y : y + patch, x : x + patch]

    for index, top, left in crops[:5]:
        np.testing.assert_array_equal(cut(index, top, left), photos[index][top : top + patch, left : left + patch])
    start = time.process_time()
    for place in crops:
        cut(*place)
    seconds = (time.process_time() - start) / len(crops)
    reader.close()
    return seconds, path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photos")
    parser.add_argument("--photos", type=int, default=3, help="how many of them")
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--patch", type=int, default=256, help="side of a crop")
    arguments = parser.parse_args()
    patch, rng = arguments.patch, np.random.default_rng(0)
    paths = files_in(arguments.folder, SUFFIXES)
    paths = [paths[i] for i in sorted(rng.permutation(len(paths))[: arguments.photos])]
    decoded = [(path, decode(path)) for path in paths]
    pairs = [(path, photo) for path, photo in decoded if min(photo.shape[:2]) >= patch]
    paths, photos = zip(*pairs, strict=True)
    pixels, files = sum(photo.size / 3 for photo in photos), sum(path.stat().st_size for path in paths)
    crops = []
    for index in rng.integers(len(photos), size=arguments.crops):
        crops.append((index, *(rng.integers(side - patch + 1) for side in photos[index].shape[:2])))

    start = time.process_time()
    for index, top, left in crops[: len(crops) // 4]:
        np.copy(decode(paths[index])[top : top + patch, left : left + patch])
    original = (time.process_time() - start) / (len(crops) // 4)
    with tempfile.TemporaryDirectory() as folder:
        results = {form: measure(photos, form, crops, patch, folder) for form in dict.fromkeys(FORMS)}
    raw, _ = results["raw", 512, 0]
    print(f"{len(photos)} photos, {pixels / 1e6:.1f} megapixels; crops of {patch} x {patch}")
    print(f"{'form':<26} {'tile':>6} {'overlap':>8} {'ms a crop':>10} {'ratio':>7} {'bytes/px':>9} {'of files':>9}")
    print(f"{'the files themselves':<26} {'':>6} {'':>8} {1e3 * original:10.2f} {original / raw:7.1f} "
          f"{files / pixels:9.2f} {1:9.2f}")  # fmt: skip
    for form, (seconds, size) in results.items():
        name, tile, overlap = form
        side = "photo" if tile == WHOLE else tile
        print(f"{name + ' *' * (form == CHOSEN):<26} {side:>6} {overlap:>8} {1e3 * seconds:10.2f} {seconds / raw:7.1f} "
              f"{size / pixels:9.2f} {size / files:9.2f}")  # fmt: skip


if __name__ == "__main__":
    main()

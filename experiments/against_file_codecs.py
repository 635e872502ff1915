"""Trained models beside JPEG and WebP at the same file size, photo by photo, and beside published curves.

    python experiments/against_file_codecs.py MODEL [MODEL ...] --photos FOLDER [--csv OUT.csv]
        [--published CURVES.json --curves NAME ...]

What it asks: how far is a nested model from the codecs in use, in files that really decode? MODEL is a
model.safetensors or the folder of the run that wrote it. Every photo in FOLDER and below is read as 8-bit RGB,
compressed to bytes, decompressed, and only then measured. bpp is 8 * bytes of the whole file / pixels; PSNR is taken on
8-bit RGB for each photo and averaged; MS-SSIM likewise, without the photos under 161 pixels; the levels' bpp are those
of the file, too.

File codecs, by Pillow: JPEG 4:2:0, optimised, progressive, quality 1-100; WebP lossy, method 6, quality 0-100. For each
photo a bisection finds the two neighbouring qualities whose files enclose nlvc's in size, and PSNR and MS-SSIM are
interpolated between them, linearly in the logarithm of the size: all codecs are compared at the size of nlvc's file.
Where no quality is small or large enough, the nearest end counts with its own size; a note below the table says so.

Published curves are JSON, {name: {"bpp": [...], "psnr": [...]}}, averages over the same photos (mostly Kodak's 24).
They are interpolated at the model's mean bpp by a monotone cubic (PCHIP) in log bpp, and never extrapolated.

Cost: for the file codecs about a minute a model on 24 Kodak photos and 2 CPU cores; the models' own time comes on top.
"""

import argparse
import csv
import functools
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

import nlvc
from nlvc.coding import unpack
from nlvc.data import to_rgb
from nlvc.evaluation import bits_per_pixel, ms_ssim, psnr

FILE_CODECS = {  # name: lowest and highest quality, what Pillow's save takes
    "JPEG": (1, 100, dict(format="JPEG", subsampling="4:2:0", optimize=True, progressive=True)),
    "WebP": (0, 100, dict(format="WEBP", method=6)),
}

Shapes = dict[str, tuple[int, int]]  # photo: height, width


class Result(NamedTuple):
    """One photo through one codec: bytes of the file (between two files if interpolated), dB, MS-SSIM or nan."""

    size: float
    psnr: float
    ms_ssim: float
    quality: float = math.nan  # a file codec's setting, between two where interpolated
    level_bytes: tuple[int, ...] = ()  # of nlvc's file, z_1 first
    clamped: bool = False  # no quality of the codec reaches the wanted size


def code_with_nlvc(model, photo: np.ndarray) -> Result:
    """A photo (H, W, 3) uint8 to a file and back."""
    data = nlvc.compress(photo, model=model)
    decoded = nlvc.decompress(data, model=model)
    levels = tuple(map(sum, unpack(data).sizes))
    return Result(len(data), psnr(photo, decoded), ms_ssim(photo, decoded), level_bytes=levels)


class FileCodec:
    """One photo through one of FILE_CODECS; files are made when asked for and kept."""

    def __init__(self, name: str, photo: np.ndarray):
        self.lowest, self.highest, self._options = FILE_CODECS[name]
        self._photo, self._picture = photo, Image.fromarray(photo)
        self.file = functools.cache(self._file)
        self.measured = functools.cache(self._measured)

    def _file(self, quality: int) -> bytes:
        buffer = io.BytesIO()
        self._picture.save(buffer, quality=quality, **self._options)
        return buffer.getvalue()

    def _measured(self, quality: int) -> Result:
        data = self.file(quality)
        with Image.open(io.BytesIO(data)) as image:
            decoded = np.asarray(image.convert("RGB"))
        return Result(len(data), psnr(self._photo, decoded), ms_ssim(self._photo, decoded), quality)

    def at_size(self, size: int) -> Result:
        """The codec's measures at exactly `size` bytes, or at the nearest end of its range."""
        if size < len(self.file(self.lowest)):
            return self.measured(self.lowest)._replace(clamped=True)
        if size > len(self.file(self.highest)):
            return self.measured(self.highest)._replace(clamped=True)
        below, above = enclosing(lambda quality: len(self.file(quality)), size, self.lowest, self.highest)
        return between(self.measured(below), self.measured(above), size)


def enclosing(size_of: Callable[[int], int], size: int, low: int, high: int) -> tuple[int, int]:
    """Neighbouring qualities (q, q + 1) with size_of(q) <= size <= size_of(q + 1), which low and high must fulfil."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_of(middle) <= size else (low, middle)
    return low, high


def between(small: Result, large: Result, size: int) -> Result:
    """Interpolated at `size` bytes, linearly in log size."""
    span = math.log(large.size / small.size)
    weight = math.log(size / small.size) / span if span else 0.0
    quality, decibels, similarity = (
        (1 - weight) * a + weight * b
        for a, b in ((small.quality, large.quality), (small.psnr, large.psnr), (small.ms_ssim, large.ms_ssim))
    )
    return Result(size, decibels, similarity, quality)


def read_curves(path: Path, names: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curves by name: bpp rising, and PSNR. Raises ValueError for an unknown name or a curve of under two points."""
    published = json.loads(path.read_text(encoding="utf-8"))
    curves = {}
    for name in names:
        if name not in published:
            raise ValueError(f"no curve {name!r} in {path}; it has {', '.join(sorted(published))}")
        bpp, first = np.unique(np.array(published[name]["bpp"], float), return_index=True)
        if len(bpp) < 2 or bpp[0] <= 0:
            raise ValueError(f"curve {name!r} in {path} needs two points of positive rate")
        curves[name] = bpp, np.array(published[name]["psnr"], float)[first]
    return curves


def published_psnr(curve: tuple[np.ndarray, np.ndarray], bpp: float) -> float:
    """A published curve's PSNR at a rate, or nan outside the curve."""
    rates, decibels = curve
    if not rates[0] <= bpp <= rates[-1]:
        return math.nan
    return float(PchipInterpolator(np.log(rates), decibels)(math.log(bpp)))


def photos(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each photo's path below the folder and its pixels (H, W, 3) uint8. Names on stderr what cannot be read."""
    suffixes = Image.registered_extensions()
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes and path.is_file()]
    skipped = 0
    for path in tqdm(paths, unit="photo"):
        try:
            with Image.open(path) as image:
                pixels = to_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            tqdm.write(f"skipped {path}: {error}", file=sys.stderr)
            skipped += 1
            continue
        yield path.relative_to(folder).as_posix(), pixels
    if skipped:
        print(f"{skipped} unreadable pictures skipped", file=sys.stderr)


def summary(model: str, shapes: Shapes, results: dict[str, list[Result]], curves: dict) -> list[list[str]]:
    """Rows of the printed table for one model: itself, each file codec, each published curve."""
    pixels = [height * width for height, width in shapes.values()]
    own_bpp, own_psnr = mean_rate(results["nlvc"], pixels), np.mean([result.psnr for result in results["nlvc"]])
    rows = []
    for name, coded in results.items():
        decibels = np.mean([result.psnr for result in coded])
        known = [result.ms_ssim for result in coded if not math.isnan(result.ms_ssim)]
        label, gap = (model, "") if name == "nlvc" else (f"  {name}", f"{own_psnr - decibels:+.2f}")
        similarity = f"{np.mean(known):.4f}" if known else "-"
        row = [label, f"{mean_rate(coded, pixels):.4f}", f"{decibels:.2f}", gap, similarity]
        rows.append(row + level_rates(coded, pixels))
    for name, curve in curves.items():
        decibels = published_psnr(curve, own_bpp)
        if math.isnan(decibels):
            rows.append([f"  {name}", "-", "-", "-"])
        else:
            rows.append([f"  {name}", f"{own_bpp:.4f}", f"{decibels:.2f}", f"{own_psnr - decibels:+.2f}"])
    return rows


def notes(model: str, shapes: Shapes, results: dict[str, list[Result]], curves: dict) -> Iterator[str]:
    """What a reader of the rows has to know about them."""
    for codec, coded in results.items():
        if count := sum(result.clamped for result in coded):
            yield f"{model}: {codec} does not reach the size of {count} files; there its nearest quality counts."
    bpp = mean_rate(results["nlvc"], [height * width for height, width in shapes.values()])
    for name, (rates, _) in curves.items():
        if not rates[0] <= bpp <= rates[-1]:
            yield f"{model}: the curve {name} covers {rates[0]:.4f} to {rates[-1]:.4f} bpp only."


def mean_rate(coded: list[Result], pixels: list[int]) -> float:
    return float(np.mean([8 * result.size / n for result, n in zip(coded, pixels, strict=True)]))


def level_rates(coded: list[Result], pixels: list[int]) -> list[str]:
    """Mean bits per pixel of each level, z_1 first; nothing for a codec that has none."""
    levels = zip(*(result.level_bytes for result in coded), strict=True)
    return [f"{np.mean([8 * size / n for size, n in zip(level, pixels, strict=True)]):.5f}" for level in levels]


def aligned(rows: list[list[str]]) -> str:
    """Columns of text, the first to the left, the others to the right."""
    columns = max(map(len, rows))
    rows = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def write_csv(path: Path, shapes: Shapes, results: dict[str, dict[str, list[Result]]]) -> None:
    """One line for each model, photo and codec. Sizes in bytes; `quality` is empty for nlvc."""
    levels = max(len(result.level_bytes) for by_codec in results.values() for result in by_codec["nlvc"])
    heads = ["model", "photo", "width", "height", "codec", "quality", "bytes", "bpp", "psnr_db", "ms_ssim", "clamped"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads + [f"z_{level}_bytes" for level in range(1, levels + 1)])
        for model, by_codec in results.items():
            for codec, coded in by_codec.items():
                for (name, (height, width)), result in zip(shapes.items(), coded, strict=True):
                    quality = "" if math.isnan(result.quality) else f"{result.quality:.3f}"
                    rate = [quality, result.size, f"{bits_per_pixel(result.size, height, width):.6f}"]
                    measures = [f"{result.psnr:.4f}", f"{result.ms_ssim:.6f}", int(result.clamped)]
                    writer.writerow([model, name, width, height, codec, *rate, *measures, *result.level_bytes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model.safetensors or the folder of its run")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="read with all folders below")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="also write every photo's figures")
    parser.add_argument("--published", type=Path, metavar="FILE", help='JSON: {name: {"bpp": [...], "psnr": [...]}}')
    parser.add_argument("--curves", nargs="+", default=["bmshj2018-hyperprior"], metavar="NAME")
    flags = parser.parse_args()
    try:
        curves = read_curves(flags.published, flags.curves) if flags.published else {}
        models = {name: nlvc.load(name) for name in flags.models}
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    shapes: Shapes = {}
    results = {name: {codec: [] for codec in ("nlvc", *FILE_CODECS)} for name in models}
    for path, photo in photos(flags.photos):
        shapes[path] = photo.shape[:2]
        rivals = {codec: FileCodec(codec, photo) for codec in FILE_CODECS}
        for name, model in models.items():
            own = code_with_nlvc(model, photo)
            results[name]["nlvc"].append(own)
            for codec, rival in rivals.items():
                results[name][codec].append(rival.at_size(own.size))
    if not shapes:
        parser.exit(2, f"{parser.prog}: no photo in {flags.photos}: give a folder of PNG, JPEG, WebP or TIFF files\n")

    deepest = max(len(by_codec["nlvc"][0].level_bytes) for by_codec in results.values())
    rows = [["", "bpp", "PSNR dB", "nlvc ahead dB", "MS-SSIM", *(f"z_{level} bpp" for level in range(1, deepest + 1))]]
    remarks = []
    for name in models:
        rows += summary(name, shapes, results[name], curves)
        remarks += notes(name, shapes, results[name], curves)
    print(f"{len(shapes)} photos of {flags.photos}: each file codec at the size of nlvc's files, photo by photo\n")
    print(aligned(rows))
    if remarks:
        print("", *remarks, sep="\n")
    if flags.csv:
        write_csv(flags.csv, shapes, results)


if __name__ == "__main__":
    main()

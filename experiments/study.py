"""What the experiments of the paper share: cells trained on one transform, and their real files on sets of photos.

An experiment is a table of grids, each a set of flags of `nlvc.sweep`. In the small budget one transform is trained
first, and every cell trains its chain on it (`--trained=chain`), so that cells differ in nothing else, and a cell takes
minutes. Every cell is one model of variable rate, so it is a whole curve.

OUT is shared by all experiments: a cell that one has trained and measured is not trained by the next, and whatever ends
a command, the same command goes on.
"""

import argparse
import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from effects import Runs
from PIL import Image
from tqdm import tqdm

from nlvc import data, sweep, train
from nlvc.config import Config
from nlvc.evaluate import sets_of
from nlvc.evaluation import PhotoSet, Point, Store, measure, model_codec, photo_curves
from nlvc.image_codec import Model, compress, infer, load
from nlvc.models.rates import quality_of
from nlvc.sweeping.grid import Cell, cells_of
from nlvc.sweeping.plan import is_finished

RATES = (0.0067, 0.013, 0.025, 0.0483)
"""The lambdas at which cells are compared."""


class Budget(NamedTuple):
    """How much an experiment does.

    Attributes:
      seeds: of every cell.
      few: seeds of cells of which there are many, or which take long.
      levels: the most that a grid over L has.
      values: the most that a grid has of any other flag; None for all.
      common: flags of the transform that all cells share; None where every cell trains its own.
      cell: flags of every cell.
      whole: flags of a cell that trains its own transform in any budget.
      fine: flags of one that is trained further after that.
      wide: flags that change those of `whole` where the widths of networks are compared.
      rich: channels of models that reach higher rates than the usual ones; None for none.
      photos: the most of each set, from all of it; None for all.
    """

    seeds: tuple[int, ...]
    few: tuple[int, ...]
    levels: int
    values: int | None
    common: tuple[str, ...] | None
    cell: tuple[str, ...]
    whole: tuple[str, ...]
    fine: tuple[str, ...]
    wide: tuple[str, ...]
    rich: int | None
    photos: int | None


_VARIABLE = ("--rate=variable",)
_TINY = (
    "--preset=tiny", *_VARIABLE, "--channels=96", "--batch-size=1", "--steps=2", "--warmup-steps=1", "--optimiser=adam"
)  # fmt: skip
_LONG = (*_VARIABLE, "--steps=200000", "--batch-size=16", "--patch-size=256", "--dtype=bfloat16")
# Of the step of a chain, on a CPU, Muon's own products would be three quarters.
BUDGETS = {
    "smoke": Budget((0,), (0,), 2, 2, (*_TINY, "--L=2"), _TINY, _TINY, ("--steps=2",), (), None, 2),
    "small": Budget(
        (0, 1, 2), (0,), 6, None, (*_VARIABLE, "--L=2", "--steps=2000"),
        (*_VARIABLE, "--steps=400", "--checkpoint-every=400", "--optimiser=adam"), (*_VARIABLE, "--steps=400"),
        ("--steps=150", "--learning-rate=2e-4"), ("--steps=150",), 320, 12,
    ),
    "full": Budget(
        (0, 1, 2), (0, 1, 2), 6, None, None, _LONG, _LONG, ("--steps=10000", "--learning-rate=2e-4"), (), 320, None
    ),
}  # fmt: skip


class Study:
    """One folder of cells and of what they are on photos.

    Args:
      out: the folder.
      budget: a name in BUDGETS.
      photos_to_learn: as `--data` of nlvc.train; none: crops of the embedded photos, which is what the smoke budget is
        for.
      sets: [NAME=]FOLDER; none: crops of the embedded test photos. Exits where there are no photos in one.
    """

    def __init__(self, out: Path, budget: str, photos_to_learn: str | None = None, sets: Sequence[str] = ()):
        self.out, self.budget, self._kept = out, BUDGETS[budget], {}
        crops = out / "embedded"
        if not photos_to_learn or not sets:
            _crop(crops)
        self.data = photos_to_learn or str(crops)
        try:
            found = sets_of(sets or [f"embedded={crops / 'test'}"])
        except (ValueError, OSError) as error:
            raise SystemExit(str(error)) from None
        self.sets = [_some(photos, self.budget.photos) for photos in found]

    def some(self, values: Sequence) -> Sequence:
        """Those of a flag's values that the budget allows, the first ones."""
        return values[: self.budget.values]

    def transform(self, channels: int | None = None) -> tuple[str, ...]:
        """The flags that give a cell the common transform, of other than the usual channels where they are given; it is
        trained first where that has not been done."""
        if self.budget.common is None:
            return ()
        workdir = self.out / _of(channels, "transform")
        words = [*self.budget.common, *_flag(channels), f"--data={self.data}", f"--workdir={workdir}"]
        if not is_finished(Cell("transform", Config.from_args(words))) and train.main(words):
            raise SystemExit(f"{workdir}: the common transform was not trained")
        return f"--init-from={workdir}", "--trained=chain"

    def train(
        self,
        grid: str,
        *words: str,
        whole: bool = False,
        channels: int | None = None,
        data: str | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Cell]:
        """Trains all cells of a grid: flags of nlvc.sweep, with one or several values each.

        whole: each trains a transform of its own in any budget; channels: instead of the usual ones, of the common
        transform too; data: learnt from instead of the study's; seeds: instead of the budget's. Two grids of one name
        and number of channels share their cells: they must stand for one choice of the flags that have a single value,
        which replace the budget's. Exits where a cell cannot be trained.
        """
        words = (*_flag(channels), *words)
        flags = self.budget.whole if whole else (*self.budget.cell, *self.transform(channels))
        given = {word.split("=")[0] for word in words}
        flags = [flag for flag in flags if flag.split("=")[0] not in given]
        folder = self.out / "cells" / _of(channels, grid)
        words = (*flags, f"--data={data or self.data}", "--seed", *map(str, seeds or self.budget.seeds), *words)
        if status := sweep.main([f"--workdir={folder}", *words]):
            raise SystemExit(status)
        return cells_of(words, folder)

    def measure(self, cells: Sequence[Cell], lambdas: Sequence[float] = RATES) -> list[Point]:
        """Codes the photos of all sets with every cell at the qualities of the lambdas, by real files."""
        qualities = tuple(quality_of(lmbda) for lmbda in lambdas)
        found = []
        with ThreadPoolExecutor(2) as pool, tqdm(total=len(cells), unit="cell", disable=None) as bar:
            for first in range(0, len(cells), 8):
                for points in pool.map(partial(self._measure, qualities=qualities), cells[first : first + 8]):
                    found += points
                    bar.update()
                # Every shape compiles programs of its own, and a process cannot hold those of a hundred.
                jax.clear_caches()
        return found

    def _latents(self, model: Model, transform: str, photo: np.ndarray, quality: float) -> np.ndarray:
        """z_1 of a photo, from memory where another model with the same transform has been measured on it: inferring
        it is most of the time of coding."""
        if self.budget.common is None:
            return infer(photo, model=model, quality=quality)
        # Photos are continued to whole strides of the deepest level, and z_1 with them.
        whole = math.prod(model.config.level_strides)
        place = transform, whole, quality, hashlib.sha256(photo).digest()
        if place not in self._kept:
            self._kept[place] = infer(photo, model=model, quality=quality)
        return self._kept[place]

    def _measure(self, cell: Cell, qualities: tuple[float, ...]) -> list[Point]:
        codec, model = model_codec(cell.workdir / "model.safetensors", qualities), load(cell.workdir)
        transform = transform_of(model)
        encode = lambda photo, quality: compress(  # noqa: E731
            photo, model=model, quality=quality, latent=self._latents(model, transform, photo, quality)
        )
        codec = codec._replace(name=called(cell), encode=encode)
        store = Store(self.out / "points" / cell.workdir.parent.name / cell.name / "points.csv", [codec])
        for photos in self.sets:
            for name in photos.names:
                missing = [q for q in qualities if not store.find(photos.name, name, codec.name, q)]
                photo = photos.read(name) if missing else None
                for quality in missing:
                    store.add(measure(codec, photo, quality, photo_set=photos.name, name=name))
        store.save()
        return [
            store.find(photos.name, name, codec.name, quality)
            for photos in self.sets for name in photos.names for quality in qualities
        ]  # fmt: skip


def transform_of(model: Model) -> str:
    """A fingerprint of q(z_1|x): of the encoder's arrays but for those between levels."""
    digest = hashlib.sha256()
    for name in sorted(name for name in model.arrays if "encoder" in name and "level_" not in name):
        digest.update(name.encode() + model.arrays[name].tobytes())
    return digest.hexdigest()


def called(cell: Cell) -> str:
    """What the points of a cell call it: cells of different grids may have one name."""
    return f"{cell.workdir.parent.name}: {cell.name}"


def runs(points: Sequence[Point], cells: Sequence[Cell], photos: str) -> Runs:
    """What cells that differ in their seeds alone, in the order of these, are on a set of photos."""
    curves = photo_curves([point for point in points if point.set == photos])
    its = [curves[photos, called(cell)] for cell in sorted(cells, key=lambda cell: cell.config.seed)]
    return Runs(np.stack([curve.bpp for curve in its]), np.stack([curve.psnr for curve in its]))


def level_bpp(points: Sequence[Point], cells: Sequence[Cell], photos: str) -> np.ndarray:
    """Mean bits per pixel of z_1, z_2, ... over cells, photos and rates, (L,)."""
    names = {called(cell) for cell in cells}
    return np.mean([point.level_bpp for point in points if point.set == photos and point.codec in names], axis=0)


def by(cells: Sequence[Cell], *fields: str) -> dict[tuple, list[Cell]]:
    """Cells grouped by fields of their configuration, in order of appearance."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell.config, field) for field in fields), []).append(cell)
    return groups


def parser(description: str) -> argparse.ArgumentParser:
    """What every experiment takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--budget", choices=BUDGETS, default="smoke", help="default: smoke, a minute or two")
    parser.add_argument("--data", help="to learn from, as of nlvc.train; default: crops of embedded photos")
    parser.add_argument("--photos", metavar="[NAME=]FOLDER", nargs="+", default=[],
                        help="sets to measure on; default: crops of embedded photos")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("runs/experiments"),
                        help="shared by all experiments of one budget; default: runs/experiments")  # fmt: skip
    return parser


def _flag(channels: int | None) -> tuple[str, ...]:
    return (f"--channels={channels}",) if channels else ()


def _of(channels: int | None, name: str) -> str:
    return f"{name}-{channels}" if channels else name


def _some(photos: PhotoSet, most: int | None) -> PhotoSet:
    """At most so many of a set, evenly from all of it: neighbours by name are often alike."""
    count = len(photos.names) if most is None else min(most, len(photos.names))
    return photos._replace(names=tuple(photos.names[n * len(photos.names) // count] for n in range(count)))


def _crop(folder: Path) -> None:
    """Writes the middle of each embedded photo as a PNG into a folder's train, validation and test."""
    for split, side in {"train": 480, "validation": 128, "test": 96}.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(data.photos("embedded", split)):
            top, left = ((size - side) // 2 for size in photo.shape[:2])
            Image.fromarray(photo[top : top + side, left : left + side]).save(folder / split / f"{number}.png")

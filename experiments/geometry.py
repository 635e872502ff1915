"""The shape of the latents: dimensionality, widths, strides of the deeper levels, and the prior's scale in bins.

    python experiments/geometry.py --budget small --data PHOTOS --photos kodak=KODAK --out OUT

Five questions, each against `base` with the same L and seed, by real files at four lambdas:

- common against tapered dimensionality, L = 2, 3, 5;
- strides of the deeper levels, L = 2, 3, 5: where z_L lies decides what a bin under a predefined prior costs at least;
- scale of the predefined logistic prior in bins, L = 2 and 5. A bin's width and the prior's scale matter by their
  ratio alone, so this is the bin's width, too: at a scale of 1 a latent that is 0 costs 2.03 bits, at 0.25 0.39;
- channels of the latents, L = 3;
- filters of the other convolutions, L = 3.

In the small budget the first three train chains on the common transform; channels and filters change the transform, so
these cells train all of it; and there is one seed: how much chance there is between seeds, experiments/levels.py says.
In OUT: geometry-SET.md, .csv and .png.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from drawing import intervals
from effects import Effect, effect, holm
from study import Study, by, level_bpp, parser, runs
from tables import interval, markdown, points_of, told

from nlvc.files import write_csv, write_whole
from nlvc.models.priors import logistic
from nlvc.sweeping.grid import Cell

STRIDES = {
    "2": ("16 4", "16 2", "16 1"),
    "3": ("16 2 2", "16 2 1", "16 4 1", "16 1 1"),
    "5": ("16 2 2 1 1", "16 2 1 1 1", "16 2 1 2 1"),
}
"""By L; the rule of `base` comes first. Together at most 64, half the crops of training."""


class Question(NamedTuple):
    """A flag, the level it was asked at, all points, and ((value,), cells) of each value, the base first."""

    field: str
    level: int
    points: list
    groups: list[tuple]


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = [level for level in STRIDES if int(level) <= study.budget.levels]
    found = []
    for level in levels:
        base = study.train("chains", "--prior", "logistic", "--L", level, seeds=study.budget.few)
        found.append(compared(study, base, "dims", "--dims", "tapered"))
        words = [word for strides in study.some(STRIDES[level])[1:] for word in ("--strides", *strides.split())]
        found.append(compared(study, base, "strides", *words))
        if level != "3":
            scales = study.some(("0.25", "0.1", "0.5", "1"))[1:]
            found.append(compared(study, base, "prior_scale", "--prior-scale", *scales))
    # Cells that train all of their model.
    level = str(min(3, study.budget.levels))
    base = study.train("whole", *study.budget.wide, "--L", level, whole=True, seeds=study.budget.few)
    widths = {"channels": ("100", "192"), "filters": ("48", "96")}
    if given.budget == "smoke":
        widths = {"filters": ("4",)}
    found += [compared(study, base, flag, f"--{flag}", *values, whole=True) for flag, values in widths.items()]
    for photos in study.sets:
        report(study, given.budget, photos.name, found)


def compared(study: Study, base: list[Cell], field: str, *words: str, whole: bool = False) -> Question:
    """Trains and measures the values of a flag beside the base."""
    level = base[0].config.L
    words = (*study.budget.wide, *words) if whole else words
    cells = base + study.train(f"{field}-{level}", "--L", str(level), *words, whole=whole, seeds=study.budget.few)
    groups = by(cells, "level_strides" if field == "strides" else field)
    return Question(field, level, study.measure(cells), list(groups.items()))


def report(study: Study, budget: str, photos: str, found: list[Question]) -> None:
    """Tables and picture of one set of photos."""
    rows, records, drawn, effects = [], [], [], []
    for question in found:
        its = {shown(value): (cells, runs(question.points, cells, photos)) for (value,), cells in question.groups}
        base, anchor = next((value, run) for value, (_, run) in its.items())
        for value, (cells, run) in its.items():
            against = None if value == base else effect(anchor, run)
            deepest = level_bpp(question.points, cells, photos)[-1]
            about = [f"{question.field}, L = {question.level}", value]
            rows.append([*about, points_of(run), f"{deepest:.4f}", against])
            if against:
                effects.append(against)
                records.append({"L": question.level, "flag": question.field, "value": value, "against": base,
                                **against._asdict()})  # fmt: skip
                label = f"{about[0]}: {value} against {base}"
                drawn.append((label, against.value, against.low, against.high, question.field))
    adjusted = iter(holm([its.p for its in effects]))
    rows = [[*row, *against_base(its, adjusted)] for *row, its in rows]
    header = ["what", "value", "bpp/PSNR", "bpp of z_L", "BD-rate against base, %", "p (Holm)", "curves that overlap"]
    seeds, count, _ = run.bpp.shape
    text = f"# Geometry on {photos}\n\n{told(budget, count, seeds)}\n\n{markdown(header, rows)}\n\n{floors()}\n"
    write_whole(study.out / f"geometry-{photos}.md", text.encode())
    write_csv(study.out / f"geometry-{photos}.csv", records)
    title = f"{photos}: geometry of the latents"
    intervals(drawn, study.out / f"geometry-{photos}.png", title, "BD-rate against base, %")
    print(text)


def against_base(its: Effect | None, adjusted: Iterator[float]) -> list[str]:
    """The columns of an effect."""
    if its is None:
        return ["base", "", ""]
    pairs = its.seeds * its.photos
    return [interval(its), f"{next(adjusted):.2g}", f"{pairs - its.left_out} of {pairs}"]


def floors(channels: int = 150) -> str:
    """What zeros cost under a predefined logistic prior, whatever the photo, by scale and stride of z_L."""
    strides, rows = (16, 32, 64, 256), []
    for scale in (0.1, 0.25, 0.5, 1.0):
        bits = float(logistic(scale=scale).coded_bits(np.zeros(1, np.float32))[0])
        rows.append([f"{scale:g}", f"{bits:.3f}", *(f"{bits * channels / stride**2:.4f}" for stride in strides)])
    header = ["scale, bins", "bits of a zero", *(f"bpp at stride {stride}" for stride in strides)]
    return f"What z_L costs at least, {channels} channels of zeros:\n\n{markdown(header, rows)}"


def shown(value) -> str:
    """A value of a flag as it is typed."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

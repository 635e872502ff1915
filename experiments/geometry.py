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
these cells train all of it, longer but with one seed. In OUT: geometry-SET.md, .csv and .png.
"""

import numpy as np
from drawing import intervals
from effects import Effect, effect, holm
from study import Study, by, level_bpp, parser, runs
from tables import interval, markdown, points_of

from nlvc.files import write_csv, write_whole
from nlvc.models.priors import logistic

STRIDES = {
    "2": ("16 4", "16 2", "16 1"),
    "3": ("16 2 2", "16 2 1", "16 4 1", "16 1 1"),
    "5": ("16 2 2 1 1", "16 2 1 1 1", "16 2 1 2 1"),
}
"""By L; the rule of `base` comes first. Together at most 64, half the crops of training."""


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = [level for level in STRIDES if int(level) <= study.budget.levels]
    found: list[tuple] = []
    for level in levels:
        found += compared(study, "dims", ("dims",), ("common",), "--L", level, "--dims", "common", "tapered")
        words = [word for strides in study.some(STRIDES[level]) for word in ("--strides", *strides.split())]
        base = tuple(map(int, STRIDES[level][0].split()))
        found += compared(study, f"strides-{level}", ("strides",), (base,), "--L", level, *words)
    for level in [level for level in levels if level in ("2", "5")]:
        scales = study.some(("0.25", "0.1", "0.5", "1"))
        found += compared(study, "scales", ("prior_scale",), (0.25,), "--L", level, "--prior-scale", *scales)
    level = str(min(3, study.budget.levels))
    widths = {"channels": ("150", "100", "192"), "filters": ("70", "48", "96")}
    if given.budget == "smoke":
        widths = {"channels": ("48", "24"), "filters": ("8", "4")}
    for flag, (base, *others) in widths.items():
        values = base, *others
        found += compared(study, flag, (flag,), (int(base),), "--L", level, f"--{flag}", *values, whole=True)
    for photos in study.sets:
        report(study, given.budget, photos.name, found)


def compared(study: Study, grid: str, fields: tuple, base: tuple, *words: str, whole: bool = False) -> list[tuple]:
    """Trains and measures a grid: a (question, base, points, cells by value) for the table, with L in the question."""
    cells = study.train(grid, *words, whole=whole)
    groups = by(cells, *fields)
    if base not in groups:
        raise ValueError(f"{grid}: {base} is not among {list(groups)}")
    return [(f"{fields[0]}, L = {cells[0].config.L}", base, study.measure(cells), groups)]


def report(study: Study, budget: str, photos: str, found: list[tuple]) -> None:
    """Tables and picture of one set of photos."""
    rows, records, drawn, effects = [], [], [], []
    for question, base, points, groups in found:
        its = {key: runs(points, cells, photos) for key, cells in groups.items()}
        for key, run in its.items():
            against = None if key == base else effect(its[base], run)
            deepest = level_bpp(points, groups[key], photos)[-1]
            rows.append([question, shown(key[0]), points_of(run), f"{deepest:.4f}", against, len(run.bpp)])
            if against:
                effects.append(against)
                about = {"question": question, "value": shown(key[0]), "against": shown(base[0])}
                records.append({**about, **against._asdict()})
                label = f"{question}: {about['value']} against {about['against']}"
                drawn.append((label, against.value, against.low, against.high, question.partition(",")[0]))
    adjusted = iter(holm([its.p for its in effects]))
    rows = [[*row[:4], *told(row[4], adjusted), row[5]] for row in rows]
    header = ["what", "value", "bpp/PSNR", "bpp of z_L", "BD-rate against base, %", "p (Holm)", "seeds"]
    text = f"# Geometry on {photos}\n\nBudget: {budget}.\n\n{markdown(header, rows)}\n\n{floors()}\n"
    write_whole(study.out / f"geometry-{photos}.md", text.encode())
    write_csv(study.out / f"geometry-{photos}.csv", records)
    title = f"{photos}: geometry of the latents"
    intervals(drawn, study.out / f"geometry-{photos}.png", title, "BD-rate against base, %")
    print(text)


def told(against: Effect | None, adjusted) -> list[str]:
    """The columns of an effect."""
    return [interval(against), f"{next(adjusted):.2g}"] if against else ["base", ""]


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

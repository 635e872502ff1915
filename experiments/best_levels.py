"""The best L as a function of the bit rate, from 0.1 to 2 bpp, on natural photos and on photos of wind turbines.

    python experiments/best_levels.py --budget small --data PHOTOS --photos kodak=KODAK turbine=TURBINE --out OUT

Cells: L with the logistic p(z_L), three seeds, in the small budget one: those of experiments/levels.py, taken from OUT
where they are there, but measured at all eight lambdas. At each rate the PSNR of every L is read off its curve (PCHIP
over the logarithm of the rate), and compared with L = 2; seeds and photos are drawn with replacement to say how certain
the order is. In OUT: best_levels-SET.md, .csv and .png.
"""

from pathlib import Path

import numpy as np
from drawing import curves
from effects import AtRates, Runs, best_at
from study import Study, by, parser, runs
from tables import markdown, told

from nlvc.config import LAMBDAS
from nlvc.files import write_csv, write_whole

BPP = np.geomspace(0.1, 2.0, 27)
ANCHOR = "L = 2"
FAR = -1.0
"""dB: below it nothing is drawn."""


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = map(str, range(1, study.budget.levels + 1))
    cells = study.train("chains", "--prior", "logistic", "--L", *levels, seeds=study.budget.few)
    points = study.measure(cells, LAMBDAS)
    for photos in study.sets:
        found = {f"L = {level}": runs(points, its, photos.name) for (level,), its in by(cells, "L").items()}
        report(study, given.budget, photos.name, found)


def report(study: Study, budget: str, photos: str, curves_of: dict[str, Runs]) -> None:
    """Table and picture of one set of photos: PSNR of each L against L = 2, and how certain the best one is."""
    seeds, count, _ = curves_of[ANCHOR].bpp.shape
    found = best_at(curves_of, BPP, reference=ANCHOR)
    known = [n for n in range(len(BPP)) if np.isfinite(found[ANCHOR].difference[n])]
    others = [name for name in found if name != ANCHOR]
    rows, records = [], []
    for n in known:
        reached = {name: its for name, its in found.items() if np.isfinite(its.share[n])}
        best = max(reached, key=lambda name: reached[name].share[n])
        differences = (told_difference(reached[name], n) if name in reached else "" for name in others)
        rows.append([f"{BPP[n]:.2f}", *differences, f"{best} ({reached[best].share[n]:.0%})"])
        records += [
            {"bpp": BPP[n], "L": name, **{field: values[n] for field, values in each._asdict().items()}}
            for name, each in found.items()
        ]
    table = markdown(["bpp", *others, "best (in how many draws)"], rows)
    about = "PSNR in dB against L = 2 at the same rate [95 % interval]; empty where a curve does not reach it."
    text = f"# The best L on {photos}\n\n{told(budget, count, seeds)} {about}\n\n{table}\n"
    write_whole(study.out / f"best_levels-{photos}.md", text.encode())
    write_csv(study.out / f"best_levels-{photos}.csv", records)
    draw(study.out / f"best_levels-{photos}.png", photos, found, known)
    print(text)


def told_difference(its: AtRates, n: int) -> str:
    """PSNR against the anchor at one rate, with its interval."""
    return f"{its.difference[n]:+.2f} [{its.low[n]:+.2f}, {its.high[n]:+.2f}]"


def draw(path: Path, photos: str, found: dict, known: list[int]) -> None:
    """The picture: of an L that lies so far below that the others would be one line, its name alone."""
    far = [name for name, its in found.items() if not np.nanmax([*its.difference[known], -np.inf]) > FAR]
    lines = [
        (name, BPP[known], its.difference[known], its.low[known], its.high[known])
        for name, its in found.items()
        if name not in far
    ]
    title = f"{photos}: PSNR against L = 2 at equal rate" + (f" ({', '.join(far)}: below {FAR:g} dB)" if far else "")
    curves(lines, path, title, "bits per pixel of the file", "PSNR against L = 2, dB", log_x=True)


if __name__ == "__main__":
    main()

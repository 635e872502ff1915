"""The best L as a function of the bit rate, from 0.1 to 2 bpp, on natural photos and on photos of wind turbines.

    python experiments/best_levels.py --budget small --data PHOTOS --photos kodak=KODAK turbine=TURBINE --out OUT

Cells: L with the logistic p(z_L), three seeds, in the small budget one: those of experiments/levels.py, taken from OUT
where they are there, but measured at all eight lambdas. At each rate the PSNR of every L is read off its curve (PCHIP
over the logarithm of the rate), and compared with L = 2; seeds and photos are drawn with replacement to say how certain
the order is. In OUT: best_levels-SET.md, .csv and .png.
"""

import numpy as np
from drawing import curves
from effects import best_at
from study import Study, by, parser, runs
from tables import markdown

from nlvc.config import LAMBDAS
from nlvc.files import write_csv, write_whole

BPP = np.geomspace(0.1, 2.0, 27)
ANCHOR = "L = 2"


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = map(str, range(1, study.budget.levels + 1))
    cells = study.train("chains", "--prior", "logistic", "--L", *levels, seeds=study.budget.few)
    points = study.measure(cells, LAMBDAS)
    for photos in study.sets:
        found = {f"L = {level}": runs(points, its, photos.name) for (level,), its in by(cells, "L").items()}
        report(study, given.budget, photos.name, best_at(found, BPP, reference=ANCHOR))


def report(study: Study, budget: str, photos: str, found: dict) -> None:
    """Table and picture of one set of photos: of each L the share of draws that it wins, and its PSNR against L = 2."""
    known = [n for n in range(len(BPP)) if np.isfinite(found[ANCHOR].difference[n])]
    rows, records = [], []
    for n in known:
        best = max(found, key=lambda name: found[name].share[n])
        its = found[best]
        rows.append([f"{BPP[n]:.2f}", best, f"{its.share[n]:.0%}",
                     f"{its.difference[n]:+.3f} [{its.low[n]:+.3f}, {its.high[n]:+.3f}]"])  # fmt: skip
        records += [
            {"bpp": BPP[n], "L": name, **{field: values[n] for field, values in each._asdict().items()}}
            for name, each in found.items()
        ]
    table = markdown(["bpp", "best", "share of draws", "PSNR against L = 2, dB"], rows)
    text = f"# The best L on {photos}\n\nBudget: {budget}.\n\n{table}\n"
    write_whole(study.out / f"best_levels-{photos}.md", text.encode())
    write_csv(study.out / f"best_levels-{photos}.csv", records)
    lines = [(name, BPP[known], its.difference[known], its.low[known], its.high[known]) for name, its in found.items()]
    curves(lines, study.out / f"best_levels-{photos}.png", f"{photos}: PSNR against L = 2 at equal rate",
           "bits per pixel of the file", "PSNR against L = 2, dB", log_x=True)  # fmt: skip
    print(text)


if __name__ == "__main__":
    main()

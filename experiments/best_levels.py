"""The best L as a function of the bit rate, from 0.1 to 2 bpp, on natural photos and on photos of wind turbines.

    python experiments/best_levels.py --budget small --data PHOTOS --photos kodak=KODAK turbine=TURBINE --out OUT

Cells: L with the logistic p(z_L), those of experiments/levels.py, taken from OUT where they are there, but measured at
all eight lambdas. How far the rates of a model reach depends on its channels, so the small and the full budget ask
models of 320 channels too, with two seeds. At each rate the PSNR of every L is read off its curve (PCHIP over the
logarithm of the rate), and compared with L = 2 of as many channels; seeds and photos are drawn with replacement to say
how certain the order is. In OUT: best_levels-SET.md and .csv, and for each number of channels a picture.
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
    words = "--prior", "logistic", "--L", *levels
    cells = study.train("chains", *words)
    if study.budget.rich:
        cells += study.train("chains", *words, channels=study.budget.rich, seeds=study.budget.seeds[:2])
    points = study.measure(cells, LAMBDAS)
    for photos in study.sets:
        found = {
            channels: {f"L = {level}": runs(points, its, photos.name) for (level,), its in by(alike, "L").items()}
            for (channels,), alike in by(cells, "channels").items()
        }
        report(study, given.budget, photos.name, found)


def report(study: Study, budget: str, photos: str, kinds: dict[int, dict[str, Runs]]) -> None:
    """Table and pictures of one set of photos: of each number of channels, PSNR of each L against L = 2."""
    about = "PSNR in dB against L = 2 at the same rate [95 % interval]; empty where a curve does not reach it."
    text, records = f"# The best L on {photos}\n\n{about}\n", []
    for channels, curves_of in kinds.items():
        seeds, count, _ = curves_of[ANCHOR].bpp.shape
        found = best_at(curves_of, BPP, reference=ANCHOR)
        known = [n for n in range(len(BPP)) if np.isfinite(found[ANCHOR].difference[n])]
        text += f"\n## {channels} channels\n\n{told(budget, count, seeds)}\n\n{table(found, known)}\n"
        records += [
            {"channels": channels, "bpp": BPP[n], "L": name}
            | {field: values[n] for field, values in each._asdict().items()}
            for n in known for name, each in found.items()
        ]  # fmt: skip
        draw(study.out / f"best_levels-{photos}-{channels}.png", f"{photos}, {channels} channels", found, known)
    write_whole(study.out / f"best_levels-{photos}.md", text.encode())
    write_csv(study.out / f"best_levels-{photos}.csv", records)
    print(text)


def table(found: dict[str, AtRates], known: list[int]) -> str:
    """PSNR against the anchor at the rates that it reaches, and how certain the best L is."""
    others, rows = [name for name in found if name != ANCHOR], []
    for n in known:
        reached = {name: its for name, its in found.items() if np.isfinite(its.share[n])}
        best = max(reached, key=lambda name: reached[name].share[n])
        differences = (told_difference(reached[name], n) if name in reached else "" for name in others)
        rows.append([f"{BPP[n]:.2f}", *differences, f"{best} ({reached[best].share[n]:.0%})"])
    return markdown(["bpp", *others, "best (in how many draws)"], rows)


def told_difference(its: AtRates, n: int) -> str:
    """PSNR against the anchor at one rate, with its interval."""
    return f"{its.difference[n]:+.2f} [{its.low[n]:+.2f}, {its.high[n]:+.2f}]"


def draw(path: Path, about: str, found: dict[str, AtRates], known: list[int]) -> None:
    """The picture: of an L that lies so far below that the others would be one line, its name alone."""
    far = [name for name, its in found.items() if not np.nanmax([*its.difference[known], -np.inf]) > FAR]
    lines = [
        (name, BPP[known], its.difference[known], its.low[known], its.high[known])
        for name, its in found.items()
        if name not in far
    ]
    title = f"{about}: PSNR against L = 2 at equal rate" + (f" ({', '.join(far)}: below {FAR:g} dB)" if far else "")
    curves(lines, path, title, "bits per pixel of the file", "PSNR against L = 2, dB", log_x=True)


if __name__ == "__main__":
    main()

"""Which p(z_L)? Five families of priors across L, with paired tests over photos and seeds, by real files.

    python experiments/priors.py --budget small --data PHOTOS --photos kodak=KODAK --out OUT

Cells: p(z_L) x L (1, 2, 5) x three seeds, each a model of variable rate, measured at four lambdas. In the small budget
all share one transform and differ in their chains alone (`study`); those that experiments/levels.py has trained into
the same OUT are taken from there.

For every L: Friedman's test of whether the families differ at all, then each family against the predefined logistic, by
Wilcoxon's test over photos, corrected for all comparisons by Holm, with BD-rate, its interval and an effect size. In
OUT: priors-SET.md (tables), priors-SET.csv (the same unrounded), priors-SET.png.
"""

import numpy as np
from drawing import intervals
from effects import Runs, effect, holm, rate_differences, verdict
from scipy import stats
from study import Study, by, level_bpp, parser, runs
from tables import interval, markdown, points_of, told

from nlvc.files import write_csv, write_whole

PRIORS = ("logistic", "gaussian", "laplace", "trainable-logistic", "factorized")
LEVELS = (1, 2, 5)


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = [str(level) for level in LEVELS if level <= study.budget.levels]
    cells = study.train("chains", "--prior", *study.some(PRIORS), "--L", *levels)
    points = study.measure(cells)
    for photos in study.sets:
        report(study, given.budget, photos.name, points, by(cells, "L", "prior"))


def report(study: Study, budget: str, photos: str, points: list, groups: dict[tuple, list]) -> None:
    """Tables and picture of one set of photos."""
    found = {key: runs(points, cells, photos) for key, cells in groups.items()}
    levels = list(dict.fromkeys(level for level, _ in found))
    effects = {key: effect(found[key[0], "logistic"], its) for key, its in found.items() if key[1] != "logistic"}
    adjusted = dict(zip(effects, holm([its.p for its in effects.values()]), strict=True))
    differ = holm([friedman([its for (level, _), its in found.items() if level == of]) for of in levels])
    rows = []
    for key, its in sorted(found.items(), key=lambda item: item[0][0]):
        deepest = level_bpp(points, groups[key], photos)[-1]
        row = [*key, points_of(its), f"{deepest:.4f}"]
        if key in effects:
            its = effects[key]
            row += [interval(its), f"{adjusted[key]:.2g}", f"{its.size:+.2f}", verdict(its, -1)]
        rows.append(row + [""] * (8 - len(row)))
    seeds, count, _ = next(iter(found.values())).bpp.shape
    table = markdown(
        ["L", "p(z_L)", "bpp/PSNR", "bpp of z_L", "BD-rate against the logistic, %", "p (Holm)", "rank-biserial",
         "better than the logistic"], rows,
    )  # fmt: skip
    pairs = [[of, f"{p:.2g}"] for of, p in zip(levels, differ, strict=True)]
    overall = markdown(["L", "the five differ: p (Friedman, Holm)"], pairs)
    text = f"# Priors on {photos}\n\n{told(budget, count, seeds)}\n\n{table}\n\n{overall}\n"
    write_whole(study.out / f"priors-{photos}.md", text.encode())
    write_csv(study.out / f"priors-{photos}.csv", [
        {"L": level, "prior": prior, "against": "logistic of the same L", **its._asdict()}
        for (level, prior), its in effects.items()
    ])  # fmt: skip
    drawn = [(f"L = {level}, {prior}", its.value, its.low, its.high, prior) for (level, prior), its in effects.items()]
    title = f"{photos}: priors against the predefined logistic"
    intervals(sorted(drawn), study.out / f"priors-{photos}.png", title, "BD-rate, %")
    print(text)


def friedman(runs_of_priors: list[Runs]) -> float:
    """p of the families being alike: ranks of their rates at equal PSNR on each photo, mean over seeds."""
    rates = np.array([rate_differences(runs_of_priors[0], its).mean(axis=0) for its in runs_of_priors])
    known = ~np.isnan(rates).any(axis=0)
    return float(stats.friedmanchisquare(*rates[:, known]).pvalue) if known.sum() > 2 else float("nan")


if __name__ == "__main__":
    main()

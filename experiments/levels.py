"""How many levels? L from 1 to 6, with the predefined logistic p(z_L) and with trainable ones, and the rivals of many
levels, a serial and a channel-conditional context, by real files.

    python experiments/levels.py --budget small --data PHOTOS --photos kodak=KODAK --out OUT

Cells: L x p(z_L) x three seeds, and two levels with each context, each a model of variable rate, measured at four
lambdas. In the small budget all share one transform, which was trained with two levels, and differ in their chains
alone (`study`); contexts, which code slowly, have one seed there.

Every cell is compared with the hyperprior (L = 2, logistic) of its seed, photo by photo; every trainable prior with the
logistic one of the same L; and every chain with the serial context, which it is said to come near. In OUT:
levels-SET.md (tables), levels-SET.csv (the same unrounded), levels-SET.png.
"""

import numpy as np
from drawing import curves
from effects import Effect, Runs, effect, holm, verdict
from study import Study, by, level_bpp, parser, runs
from tables import interval, markdown, points_of, told

from nlvc.files import write_csv, write_whole

PRIORS = ("logistic", "trainable-logistic", "factorized")
"""The paper's choice for many levels, then what it found to hurt there."""
CONTEXTS = ("spatial", "channel")
ANCHOR = (2, "logistic", "none")
SERIAL = (2, "logistic", "spatial")


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    levels = list(map(str, range(1, study.budget.levels + 1)))
    cells = study.train("chains", "--prior", *study.some(PRIORS), "--L", *levels[:5])
    cells += study.train("chains", "--prior", PRIORS[0], "--L", *levels[5:]) if levels[5:] else []
    cells += study.train("contexts", "--context", *CONTEXTS, "--L", "2", seeds=study.budget.few)
    points = study.measure(cells)
    for photos in study.sets:
        report(study, given.budget, photos.name, points, by(cells, "L", "prior", "context"))


def report(study: Study, budget: str, photos: str, points: list, groups: dict[tuple, list]) -> None:
    """Tables and picture of one set of photos."""
    found = {key: runs(points, cells, photos) for key, cells in groups.items()}
    against = {key: effect(*paired(found[ANCHOR], its)) for key, its in found.items() if key != ANCHOR}
    trainable = {
        key: effect(*paired(found[key[0], "logistic", "none"], its))
        for key, its in found.items()
        if key[1] != "logistic"
    }
    serial = {
        key: effect(*paired(found[SERIAL], its))
        for key, its in found.items()
        if key[1:] == ("logistic", "none") and key[0] > 1
    }
    deepest = {key: level_bpp(points, cells, photos)[-1] for key, cells in groups.items()}
    seeds, count, _ = found[ANCHOR].bpp.shape
    text = (
        f"# Levels on {photos}\n\n{told(budget, count, seeds)}\n\n"
        f"{rates(found, against, deepest)}\n\n{priors(trainable)}\n\n{chains(serial)}\n"
    )
    write_whole(study.out / f"levels-{photos}.md", text.encode())
    write_csv(study.out / f"levels-{photos}.csv", [
        {"L": levels, "prior": prior, "context": context, "against": name, **its._asdict()}
        for name, each in (("L=2 logistic", against), ("logistic of the same L", trainable), ("serial context", serial))
        for (levels, prior, context), its in each.items()
    ])  # fmt: skip
    draw(study, photos, against)
    print(text)


def paired(anchor: Runs, other: Runs) -> tuple[Runs, Runs]:
    """Both with the seeds that both have, the first ones."""
    seeds = min(len(anchor.bpp), len(other.bpp))
    return tuple(Runs(its.bpp[:seeds], its.psnr[:seeds]) for its in (anchor, other))


def rates(found: dict[tuple, Runs], against: dict[tuple, Effect], deepest: dict[tuple, float]) -> str:
    """The table of all cells: means over seeds and photos at each quality, and BD-rates against the hyperprior."""
    adjusted = dict(zip(against, holm([its.p for its in against.values()]), strict=True))
    rows = []
    for key, its in found.items():
        row = ["anchor", "", ""]
        if key in against:
            row = [interval(against[key]), f"{adjusted[key]:.2g}", f"{against[key].size:+.2f}"]
        rows.append([*key, points_of(its), f"{deepest[key]:.4f}", *row])
    tests = ["BD-rate against L = 2, %", "p (Holm)", "rank-biserial"]
    return markdown(["L", "p(z_L)", "context", "bpp/PSNR", "bpp of z_L", *tests], rows)


def priors(trainable: dict[tuple, Effect]) -> str:
    """The table of trainable priors against the logistic one of the same L."""
    adjusted = holm([its.p for its in trainable.values()])
    rows = [
        [*key[:2], interval(its), f"{p:.2g}", f"{its.size:+.2f}", verdict(its, +1)]
        for (key, its), p in zip(trainable.items(), adjusted, strict=True)
    ]
    return markdown(
        ["L", "p(z_L)", "BD-rate against the logistic, %", "p (Holm)", "rank-biserial", "it hurts"], rows
    )


def chains(serial: dict[tuple, Effect]) -> str:
    """The table of chains against the serial context."""
    rows = [[levels, interval(its), f"{its.size:+.2f}"] for (levels, *_), its in serial.items()]
    return markdown(["L", "BD-rate of the chain against the serial context, %", "rank-biserial"], rows)


def draw(study: Study, photos: str, against: dict[tuple, Effect]) -> None:
    """BD-rate by L, a line for each prior."""
    lines = []
    for prior in PRIORS:
        its = {levels: found for (levels, *kind), found in against.items() if kind == [prior, "none"]}
        if ANCHOR[1] == prior:
            its[ANCHOR[0]] = Effect(*(0.0,) * len(Effect._fields))
        its = dict(sorted(its.items()))
        bands = ([getattr(each, field) for each in its.values()] for field in ("value", "low", "high"))
        lines.append((prior, list(its), *map(np.array, bands)))
    for context in CONTEXTS:
        its = against[2, "logistic", context]
        lines.append((f"{context} context", [2], *([value] for value in (its.value, its.low, its.high))))
    title, label = f"{photos}: levels and priors", "BD-rate against L = 2, logistic, %"
    ticks = range(1, study.budget.levels + 1)
    curves(lines, study.out / f"levels-{photos}.png", title, "levels, L", label, ticks=ticks)


if __name__ == "__main__":
    main()

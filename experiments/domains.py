"""Across domains: models of natural photos, of wind turbines and of both, on photos of every kind; and fine-tuning.

    python experiments/domains.py --budget small --natural NATURAL --turbine TURBINE \\
        --photos kodak=KODAK clic=CLIC turbine=TURBINE_TEST industrial=INDUSTRIAL --out OUT

Three models of variable rate (L = 3, each all by itself, in every budget) learn from NATURAL, from TURBINE and from the
photos of both, at the same number of steps. The model of natural photos is then fine-tuned on 50 of TURBINE's photos,
and for as many steps on its own, because more steps help also without new photos. On every set each is compared with
the model of natural photos, photo by photo. In OUT: domains-SET.md, .csv and domains.png, BD-rates by set.

NATURAL and TURBINE are folders of pictures without the subfolders train, validation and test.
"""

import shutil
from pathlib import Path

from drawing import intervals
from effects import effect, holm
from study import Study, parser, runs
from tables import interval, markdown, points_of, told

from nlvc.data import SUFFIXES
from nlvc.files import whole_folder, write_csv, write_whole
from nlvc.folders import files_in
from nlvc.sweeping.grid import Cell

FINE = 50
"""Photos that a model is fine-tuned on."""
ANCHOR = "natural"


def main() -> None:
    """The command."""
    flags = parser(__doc__)
    flags.add_argument("--natural", metavar="FOLDER", type=Path, help="photos to learn from")
    flags.add_argument("--turbine", metavar="FOLDER", type=Path, help="the other photos to learn from")
    given = flags.parse_args()
    if (given.natural is None) != (given.turbine is None) or (given.natural is None and given.budget != "smoke"):
        flags.error("--natural and --turbine are needed together; only the smoke budget does without")
    study = Study(given.out, given.budget, given.data, given.photos)
    domains, few = dict.fromkeys(("natural", "turbine", "mixed"), study.data), study.data
    if given.natural:
        domains, few = gathered(given.out / "domains", given.natural, given.turbine)
    level = str(min(3, study.budget.levels))
    cells = {
        name: study.train(f"domain-{name}", "--L", level, whole=True, data=its, seeds=study.budget.few)
        for name, its in domains.items()
    }
    cells[f"natural, then {FINE} of turbine"] = fine_tuned(study, "few", cells[ANCHOR], few)
    cells["natural, as many steps more"] = fine_tuned(study, "more", cells[ANCHOR], domains[ANCHOR])
    points = {name: study.measure(its) for name, its in cells.items()}
    rows = [row for photos in study.sets for row in report(study, given.budget, photos.name, cells, points)]
    intervals(rows, study.out / "domains.png", "Against the model of natural photos", "BD-rate, %")


def gathered(out: Path, natural: Path, turbine: Path) -> tuple[dict[str, str], str]:
    """The folders to learn from by name, and the one to fine-tune on; copies in `out` where photos are put together."""
    mixed, few = out / "mixed", out / "few"
    out.mkdir(parents=True, exist_ok=True)
    if not mixed.exists():
        with whole_folder(mixed) as folder:
            shutil.copytree(natural, folder / "natural")
            shutil.copytree(turbine, folder / "turbine")
    if not few.exists():
        with whole_folder(few) as folder:
            photos = files_in(turbine, SUFFIXES)
            for number in range(min(FINE, len(photos))):
                # From all of the folder, because neighbours by name are of one flight.
                photo = photos[number * len(photos) // FINE if len(photos) > FINE else number]
                shutil.copy(photo, folder / f"{number:02}-{photo.name}")
    return {"natural": str(natural), "turbine": str(turbine), "mixed": str(mixed)}, str(few)


def fine_tuned(study: Study, name: str, cells: list[Cell], folder: str) -> list[Cell]:
    """Each cell trained further on a folder of photos."""
    return [
        tuned
        for cell in cells
        for tuned in study.train(
            f"domain-{name}", *study.budget.fine, f"--init-from={cell.workdir}", whole=True, data=folder,
            seeds=(cell.config.seed,),
        )
    ]  # fmt: skip


def report(study: Study, budget: str, photos: str, cells: dict, points: dict) -> list[tuple]:
    """Tables of one set of photos; its rows of the picture."""
    found = {name: runs(points[name], its, photos) for name, its in cells.items()}
    effects = {name: effect(found[ANCHOR], its) for name, its in found.items() if name != ANCHOR}
    adjusted = dict(zip(effects, holm([its.p for its in effects.values()]), strict=True))
    rows = [
        [name, points_of(its), interval(effects[name]) if name in effects else "anchor",
         f"{adjusted[name]:.2g}" if name in effects else ""]
        for name, its in found.items()
    ]  # fmt: skip
    seeds, count, _ = found[ANCHOR].bpp.shape
    table = markdown(["learnt from", "bpp/PSNR", "BD-rate against natural, %", "p (Holm)"], rows)
    text = f"# Domains on {photos}\n\n{told(budget, count, seeds)}\n\n{table}\n"
    write_whole(study.out / f"domains-{photos}.md", text.encode())
    records = [{"set": photos, "learnt from": name, **its._asdict()} for name, its in effects.items()]
    write_csv(study.out / f"domains-{photos}.csv", records)
    print(text)
    return [(f"{photos}: {name}", its.value, its.low, its.high, name) for name, its in effects.items()]


if __name__ == "__main__":
    main()

"""What models cost: multiply-accumulates, parameters, seconds by stage and memory, by L, dimensionality and context.

    python experiments/complexity.py --budget small --data PHOTOS --photos kodak=KODAK --out OUT

Models: the cells of experiments/levels.py and experiments/geometry.py of the first seed (taken from OUT where they are
there), coding the first photo of the first set at the default quality. Seconds are the best of runs on a warm process,
also as a ratio to WebP (Pillow, method 4), which codes the same pixels in the same process; nothing else may run on the
machine. File codecs code the same photo at about the rate of the model with L = 2. The cost against megapixels is that
of the photo mirrored to larger sizes, each in a process of its own. Stages and sizes are measured by
benchmarks/codec_speed.py. In OUT: complexity.md, .csv, and complexity-stages.png, complexity-size.png.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from drawing import curves, stacks
from macs import per_pixel
from study import Study, parser
from tables import markdown

from nlvc.evaluation import available, bits_per_pixel, measure, rivals
from nlvc.files import write_csv, write_whole
from nlvc.sweeping.grid import Cell

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from codec_speed import STAGES, measured_apart, stage_shares  # noqa: E402

MEGAPIXELS = {"smoke": (0.05, 0.1), "small": (0.4, 1.6, 6, 24), "full": (0.4, 1.6, 6, 24, 100)}
SIDES = ("encode", "decode")


class Cost(NamedTuple):
    """What one model costs on the photo; `facts` as of codec_speed."""

    name: str
    compress: float
    decompress: float
    parameters: int
    facts: dict


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    photos = study.sets[0]
    photo = photos.folder / photos.names[0]
    height, width = photos.read(photos.names[0]).shape[:2]
    # In turns would be fairer still, but every model has a process of its own, and WebP is in each.
    kinds = named_cells(study)
    costs = [cost(name, cell, photo, width * height / 1e6) for name, cell in kinds.items()]
    model = kinds["L = 2"].workdir
    sizes = {
        size: measured_apart(str(model), str(photo), size, 3 if size < 24 else 1) for size in MEGAPIXELS[given.budget]
    }
    reference = next(found for found in costs if found.name == "L = 2")
    files = file_codecs(photos.read(photos.names[0]), rate(reference))
    parts = [f"# Complexity\n\nBudget: {given.budget}; {photo.name}, {width} x {height}.", of_models(costs),
             of_stages(costs), f"File codecs at about the rate of L = 2:\n\n{of_files(files)}",
             f"The model of two levels by size:\n\n{of_sizes(sizes)}"]  # fmt: skip
    text = "\n\n".join(parts) + "\n"
    write_whole(given.out / "complexity.md", text.encode())
    write_csv(given.out / "complexity.csv", [record(found) for found in costs])
    draw(given.out, costs, sizes)
    print(text)


def named_cells(study: Study) -> dict[str, Cell]:
    """The models by name, one of each kind."""
    seeds = study.budget.seeds[:1]
    levels = [str(level) for level in range(1, study.budget.levels + 1)]
    found = {
        f"L = {cell.config.L}": cell
        for cell in study.train("chains", "--prior", "logistic", "--L", *levels, seeds=seeds)
    }
    deep = str(min(3, study.budget.levels))
    found[f"L = {deep}, tapered"], *_ = study.train(f"dims-{deep}", "--L", deep, "--dims", "tapered", seeds=seeds)
    for cell in study.train("contexts", "--context", "spatial", "channel", "--L", "2", seeds=seeds):
        found[f"L = 2, {cell.config.context} context"] = cell
    return found


def cost(name: str, cell: Cell, photo: Path, megapixels: float) -> Cost:
    """Counts and measures one model."""
    return Cost(name, *per_pixel(cell.config), measured_apart(str(cell.workdir), str(photo), megapixels, 3))


def rate(found: Cost) -> float:
    """Bits per pixel of the file that was timed."""
    return bits_per_pixel(found.facts["bytes"], found.facts["height"], found.facts["width"])


def file_codecs(photo, bpp: float) -> dict[str, tuple[float, float, float]]:
    """Installed codec -> (bpp, seconds to encode, seconds to decode), at its setting nearest to a rate."""
    height, width = photo.shape[:2]
    found = {}
    for codec in rivals([name for name, missing in available().items() if not missing]):
        sizes = {setting: len(codec.encode(photo, setting)) for setting in codec.settings}
        nearest = min(sizes, key=lambda setting: abs(bits_per_pixel(sizes[setting], height, width) - bpp))
        points = [measure(codec, photo, nearest) for _ in range(3)]
        found[codec.name] = points[0].bpp, *(min(getattr(p, f"{side}_s") for p in points) for side in SIDES)
    return found


def of_models(costs: list[Cost]) -> str:
    """The table of all models."""
    rows = []
    for found in costs:
        facts = found.facts
        row = [found.name, f"{found.compress / 1e3:.1f}", f"{found.decompress / 1e3:.1f}"]
        row += [f"{found.parameters / 1e6:.2f}", f"{rate(found):.3f}"]
        for side in SIDES:
            wall = facts[side]["wall"]
            row += [f"{wall:.3f}", f"{wall / facts['webp'][side]:.1f}"]
        rows.append([*row, f"{facts['memory']:.0f}"])
    header = ["model", "kMAC/pixel to compress", "to decompress", "million parameters", "bpp", "compress, s",
              "times WebP", "decompress, s", "times WebP", "peak MiB"]  # fmt: skip
    return markdown(header, rows)


def of_stages(costs: list[Cost]) -> str:
    """The table of stages, in per cent of the wall time."""
    rows = []
    for found in costs:
        for side in SIDES:
            shares = stage_shares(found.facts[side])
            rows.append([found.name, side, *(f"{share:.0%}" for share in shares)])
    return markdown(["model", "", *STAGES, "rest"], rows)


def of_files(files: dict[str, tuple[float, float, float]]) -> str:
    """The table of file codecs."""
    rows = [[name, f"{bpp:.3f}", *(f"{1e3 * wall:.1f}" for wall in times)] for name, (bpp, *times) in files.items()]
    return markdown(["codec", "bpp", "encode, ms", "decode, ms"], rows)


def of_sizes(sizes: dict[float, dict]) -> str:
    """The table of sizes."""
    rows = []
    for size, facts in sizes.items():
        row = [f"{size:g}"]
        for side in SIDES:
            row += [f"{facts[side]['wall']:.2f}", f"{facts[side]['wall'] / size:.2f}"]
        rows.append([*row, f"{facts['memory']:.0f}"])
    return markdown(["megapixels", "compress, s", "s/MP", "decompress, s", "s/MP", "peak MiB"], rows)


def record(found: Cost) -> dict:
    """A line of complexity.csv."""
    measures = {f"{side}_{name}": value for side in SIDES for name, value in found.facts[side].items()}
    webp = {f"webp_{side}": found.facts["webp"][side] for side in SIDES}
    counts = {name: getattr(found, name) for name in ("name", "compress", "decompress", "parameters")}
    return {**counts, **measures, **webp, "memory": found.facts["memory"], "bpp": rate(found)}


def draw(out: Path, costs: list[Cost], sizes: dict[float, dict]) -> None:
    """Both pictures."""
    names = [f"{found.name}: {side}" for found in costs for side in SIDES]
    walls = [found.facts[side] for found in costs for side in SIDES]
    shares = [stage_shares(reading) for reading in walls]
    parts = {
        stage: [reading["wall"] * share[place] for reading, share in zip(walls, shares, strict=True)]
        for place, stage in enumerate((*STAGES, "rest"))
    }
    stacks(names, parts, out / "complexity-stages.png", "Where the time goes", "seconds")
    lines = [(side, list(sizes), [facts[side]["wall"] for facts in sizes.values()], None, None) for side in SIDES]
    webp = [facts["webp"].get("encode", float("nan")) for facts in sizes.values()]
    lines.append(("WebP, encode", list(sizes), webp, None, None))
    curves(lines, out / "complexity-size.png", "Time by size", "megapixels", "seconds", log_x=True, log_y=True,
           ticks=list(sizes))  # fmt: skip


if __name__ == "__main__":
    main()

"""`python -m nlvc.sweep`: trains a model for every combination of flags, and ends with one table of real files."""

import argparse
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from nlvc import train
from nlvc.config import ConfigError
from nlvc.files import remove_leftovers
from nlvc.process import keep_freed_memory, keep_programs
from nlvc.sweeping.cluster import Cluster
from nlvc.sweeping.grid import Cell, cells_of
from nlvc.sweeping.local import Local
from nlvc.sweeping.plan import Pack, describe, is_finished, plan
from nlvc.sweeping.progress import DONE, FAILED, Progress
from nlvc.sweeping.results import Results
from nlvc.sweeping.screen import Screen


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 if a cell failed, 2 for wrong flags, 128 + n for signal n."""
    try:
        arguments, words = build_parser().parse_known_args(argv)
        cells = cells_of(words, arguments.workdir)
        keep_freed_memory()
        keep_programs()
        engine = Cluster(arguments.address, arguments.cpus) if arguments.engine == "ray" else Local()
        packs = plan(cells, engine.devices, lambda shape: arguments.pack or engine.fitting(shape))
        if arguments.dry_run:
            return show(cells, packs, engine)
        return run(cells, packs, engine, arguments.workdir)
    except (ConfigError, ValueError, OSError) as error:
        print(f"nlvc.sweep: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("nlvc.sweep: stopped; the same command resumes", file=sys.stderr)
        return 128 + signal.SIGINT


def build_parser() -> argparse.ArgumentParser:
    """The sweep's own flags."""
    parser = argparse.ArgumentParser(
        prog="python -m nlvc.sweep",
        description="Trains a model for every combination of flags. The same command resumes.",
        epilog="All other flags are those of python -m nlvc.train, each with one or several values: --L 2 3 4 --seed 0 "
        "1. --strides, which takes several words, is given once for each value; a switch and its opposite "
        "(--linear-path --no-linear-path) are two values.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", metavar="FOLDER", type=Path, default=Path("runs/sweep"),
                        help="where each cell has its workdir, and results.csv is; default: runs/sweep")  # fmt: skip
    parser.add_argument("--pack", metavar="N", type=positive, help="models in one program on a device; "
                        "default: as many as its memory holds, and 1 on a CPU")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the memory it needs, train nothing")
    parser.add_argument("--engine", choices=("local", "ray"), default="local",
                        help="the devices of this computer, or a Ray cluster")  # fmt: skip
    parser.add_argument("--address", help="of the Ray cluster; default: the one that runs here, or a new one")
    parser.add_argument("--cpus", metavar="N", type=positive, help="cores that a pack asks Ray for; "
                        "default: those of a computer, or 1 beside a GPU")  # fmt: skip
    return parser


def positive(text: str) -> int:
    """A number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def show(cells: list[Cell], packs: list[Pack], engine: Local | Cluster) -> int:
    """Prints the plan. Returns the exit status: 1 if there are cells that cannot be."""
    print(f"{len(cells)} cells in {len(packs)} programs of {len({pack.shape for pack in packs})} shapes, on {engine}")
    if packs:
        print(describe(packs, engine.bytes_per_model))
    return int(complain(impossible(cells)) > 0)


def run(cells: list[Cell], packs: list[Pack], engine: Local | Cluster, folder: Path) -> int:
    """Trains what is not finished, and writes results.csv anew with every cell that is. Returns the exit status."""
    path = folder / "results.csv"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    print(f"{len(cells)} cells in {len(packs)} programs, on {engine}, workdir: {folder}", flush=True)
    results = Results(path, cells)
    with train.signals() as received, Screen([cell.name for cell in cells], sys.stdout) as screen:
        failed = {progress.cell: progress for progress in impossible(cells)}
        for progress in [*failed.values(), *results.add_finished()]:
            screen.tell(progress)
        packs = [pack for pack in packs if not all(map(is_finished, pack.cells))]
        for progress in engine.run(packs, lambda: bool(received)):
            if progress and progress.state == DONE:
                progress = results.add(progress)
            screen.tell(progress)
            if progress and progress.state == FAILED:
                failed[progress.cell] = progress
    complain(failed.values())
    print(f"{len(results)} of {len(cells)} cells are done" + f"; results: {path}" * (len(results) > 0))
    if received and len(results) + len(failed) < len(cells):
        print(f"stopped by {signal.Signals(received[0]).name}; the same command resumes")
        return 128 + received[0]
    return int(len(results) < len(cells))


def impossible(cells: list[Cell]) -> list[Progress]:
    """The cells that have no configuration, as failures."""
    return [Progress(cell.name, FAILED, text=cell.error) for cell in cells if cell.error]


def complain(failed: Iterable[Progress]) -> int:
    """One line on stderr for each failed cell. Returns how many there are."""
    failed = list(failed)
    for progress in failed:
        print(f"nlvc.sweep: {progress.cell}: {progress.text}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())

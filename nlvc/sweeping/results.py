"""results.csv: one line for each finished cell and test photo, with every choice of the cell beside every measure."""

import csv
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from nlvc.files import write_csv
from nlvc.models.weights import describe_model
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.plan import is_finished
from nlvc.sweeping.progress import DONE, FAILED, Progress, one_line


class Results:
    """The file and what it is made of; it is written whole, each time that a cell is added, from the cells' workdirs.

    Columns: cell; every field of Config; fingerprint of the model; seconds of training on the wall clock, which the
    cells of a pack spend together; then the columns of report.csv: photo, width, height, bytes of the file, bpp,
    bpp_estimated, psnr (dB), ms_ssim, and bpp_1.. of the levels that the model has.
    """

    def __init__(self, path: Path, cells: Iterable[Cell]):
        """cells: all of the sweep, in the order of the file."""
        self._path = path
        self._cells = {cell.name: cell for cell in cells}
        self._records: dict[str, list[dict]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add_finished(self) -> list[Progress]:
        """Adds the cells whose runs are complete already, and tells of each."""
        finished = [cell for cell in self._cells.values() if cell.config and is_finished(cell)]
        told = [self._read(Progress(cell.name, DONE, cell.config.steps, cell.config.steps)) for cell in finished]
        self._write()
        return told

    def add(self, progress: Progress) -> Progress:
        """Adds a cell that is said to be done; returns what is to be told of it: a failure if its files are broken."""
        progress = self._read(progress)
        self._write()
        return progress

    def _read(self, progress: Progress) -> Progress:
        try:
            self._records[progress.cell] = records_of(self._cells[progress.cell])
        except (ValueError, KeyError, OSError) as error:
            return progress._replace(state=FAILED, text=f"its results cannot be read: {one_line(error)}")
        return progress

    def _write(self) -> None:
        write_csv(self._path, [record for name in self._cells for record in self._records.get(name, [])])


def records_of(cell: Cell) -> list[dict]:
    """The lines of one cell, a column each key."""
    config = dataclasses.asdict(cell.config)
    config["strides"] = " ".join(map(str, cell.config.level_strides))
    about = {
        "cell": cell.name,
        **config,
        "fingerprint": describe_model(cell.workdir / "model.safetensors")[1],
        "seconds": f"{seconds_of(cell):.1f}",
    }
    with (cell.workdir / "report.csv").open(newline="") as file:
        photos = [{"photo": row.pop("name"), **row} for row in csv.DictReader(file)]
    return [{**about, **photo} for photo in photos]


def seconds_of(cell: Cell) -> float:
    """The time that the steps in the journal took: without what a kill undid, and without saving and coding."""
    seconds, last = 0.0, 0
    for line in (cell.workdir / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if "images_per_second" in values:
            seconds += (values["step"] - last) * cell.config.batch_size / values["images_per_second"]
            last = values["step"]
    return seconds
